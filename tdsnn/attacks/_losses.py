"""Losses on logits that attacks raise besides that of the task."""

from __future__ import annotations

from torch import Tensor

from tdsnn.errors import GateError

_SMALLEST = 1e-12


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (N,), 0 at the decision boundary, at most 1 beyond it.

    ``-(z_y - max of the others) / (z_(1) - z_(3))`` with z_(k) the k-th highest logit: neither the scale of
    the logits nor a constant added to them changes it (Croce and Hein, 2020, arXiv:2003.01690, eq. 6).

    Raises:
        GateError: fewer than three classes.
    """
    highest = _highest(logits, 3, "DLR")
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return (other - own) / (highest[:, 0] - highest[:, 2] + _SMALLEST)


def targeted_dlr(logits: Tensor, pairs: Tensor) -> Tensor:
    """The same towards one class (N,): ``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`` (eq. 7 there).

    Args:
        pairs: true class and target class of each sample, (N, 2).

    Raises:
        GateError: fewer than four classes.
    """
    highest = _highest(logits, 4, "targeted DLR")
    own, target = logits.gather(1, pairs).unbind(1)
    return (target - own) / (highest[:, 0] - highest[:, 2:].mean(1) + _SMALLEST)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the highest other logit exceeds that of the true class, (N,)."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], float("-inf")).amax(1) - own


def _highest(logits: Tensor, count: int, loss: str) -> Tensor:
    if logits.shape[1] < count:
        raise GateError(
            f"The {loss} loss needs at least {count} classes, and this network has {logits.shape[1]}."
        )
    return logits.topk(count, 1).values
