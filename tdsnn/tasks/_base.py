"""The contract of tasks: what a network has learned, and how its answers are scored and compared.

Neither this nor a task of the project imports torch before a loss is asked for: stored scores are compared
without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from tdsnn.errors import UsageError
from tdsnn.registry import Registry
from tdsnn.results import Figure
from tdsnn.stats import PairedDifference

if TYPE_CHECKING:
    from torch import Tensor

TASKS: Registry[Task] = Registry("task", "tdsnn.tasks")


class Task(ABC):
    """Base of every task; a plug-in is one instance. A dataset names the task that it is for.

    A score says how well one sample is answered, higher is better. Scores are what attacks lower, what cells
    keep, and what two models are compared by.
    """

    floor: ClassVar[float]
    """The lowest score: a sample that has it has nothing to lose, so no attack is spent on it."""

    chooses_class: ClassVar[bool] = False
    """Whether outputs are logits, of which the highest is the answer, and targets are classes; losses of such
    a task also take shares of classes (N, K), as mixtures of images have."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What gradient attacks raise: (N,), of outputs (N, K) and targets (N,), differentiable."""

    def training_loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """What training lowers: (), of outputs (N, K) and targets (N,), differentiable.

        Args:
            label_smoothing: share of each target, in [0, 1), that is spread over all answers; of a task that
                does not say how, 0.

        Raises:
            UsageError: this task has no label smoothing.
        """
        if label_smoothing:
            raise UsageError(
                f"What this network learns has no labels that can be smoothed by {label_smoothing:g}.",
                hint="Train it with --set label_smoothing=0",
            )
        return self.loss(outputs, targets).mean()

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scores (N,) of outputs (N, K) for targets (N,)."""

    @abstractmethod
    def chance(self, targets: NDArray[Any]) -> float:
        """Mean score of the best answer that is the same for all targets (N,)."""

    @abstractmethod
    def figure(self, scores: NDArray[Any]) -> Figure:
        """Mean of scores (n,) with unit and 95 % interval."""

    @abstractmethod
    def compare(self, ours: NDArray[Any], theirs: NDArray[Any]) -> PairedDifference:
        """Paired test of two models' scores (n,) on the same samples."""
