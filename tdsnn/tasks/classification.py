"""Classification: one class for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tdsnn.results import Figure, accuracy_figure
from tdsnn.stats import PairedDifference, paired_difference
from tdsnn.tasks._base import Task

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLASSIFICATION"]


class _Classification(Task):
    """Logits (N, K) for K classes. A score is whether the highest logit is that of the true class.

    Ties go to the lowest class. Attacks raise the cross-entropy, a figure is the accuracy in percent, and two
    models are compared by McNemar's exact test.
    """

    floor: ClassVar[float] = 0.0
    chooses_class: ClassVar[bool] = True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (N,)."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, reduction="none")

    def training_loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """Cross-entropy with smoothed labels (Szegedy et al. 2016, arXiv:1512.00567), () over the batch."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(N,) bool: right or not."""
        return outputs.argmax(1) == targets

    def chance(self, targets: NDArray[Any]) -> float:
        """Share of the most frequent class."""
        return float(np.unique(targets, return_counts=True)[1].max()) / len(targets)

    def figure(self, scores: NDArray[Any]) -> Figure:
        """Accuracy in percent with its Wilson interval."""
        return accuracy_figure(int(scores.sum()), scores.size)

    def compare(self, ours: NDArray[Any], theirs: NDArray[Any]) -> PairedDifference:
        """Difference of accuracies with Tango's interval and the exact McNemar test."""
        return paired_difference(ours, theirs)


CLASSIFICATION: Task = _Classification()
