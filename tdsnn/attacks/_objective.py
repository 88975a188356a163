"""What gradient attacks raise, on the samples that still stand."""

from __future__ import annotations

from torch import Tensor, nn

from tdsnn.attacks._gradient import Finiteness, Loss, loss_gradient, respond
from tdsnn.errors import GateError
from tdsnn.kernels.surrogates import Surrogate
from tdsnn.tasks._base import Task


def through(model: nn.Module, surrogate: Surrogate | None) -> nn.Module:
    """The network that gradients are taken of: ``model`` itself without a surrogate.

    Raises:
        GateError: it has no spikes, or does not offer the surrogate.
    """
    if surrogate is None:
        return model
    offered = getattr(model, "with_surrogate", None)
    other: nn.Module = model if offered is None else offered(surrogate)
    if other is model:
        raise GateError(
            f"The surrogate {surrogate} has no meaning for a network without spikes of this project's kind.",
            hint="Leave out the setting surrogate; wrapped networks offer it by a method with_surrogate.",
        )
    return other


class Objective:
    """A loss on samples under attack, its gradient, and who has fallen.

    Args:
        model: whose answers count.
        x: images without attack (N, C, H, W).
        y: targets (N,).
        task: what a fallen sample is.
        source: whose gradients are followed; None: the model's own.
        surrogate: what gradients are taken through; None: as trained.
        loss: to be raised; default the task's.
        targets: of the loss, (N, ...); default ``y``.
        draws: gradients whose mean is taken, for networks that draw random numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        task: Task,
        source: nn.Module | None = None,
        surrogate: Surrogate | None = None,
        loss: Loss | None = None,
        targets: Tensor | None = None,
        draws: int = 1,
    ) -> None:
        self.model, self.x, self.y, self.task, self.draws = model, x, y, task, draws
        self.targets = y if targets is None else targets
        self.loss = task.loss if loss is None else loss
        self.finiteness = Finiteness()
        self._through = through(source or model, surrogate)
        self._own_answers = source is None and (surrogate is None or not surrogate.replaces_spikes)

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, K) at ``points`` (N, C, H, W), and the gradient of the loss there."""
        outputs, gradient = self._loss_gradient(points)
        for draw in range(1, self.draws):
            others = self._loss_gradient(points)
            # A running mean, so that one draw is taken exactly as it is.
            outputs, gradient = (
                a.lerp(b, 1 / (draw + 1)) for a, b in zip((outputs, gradient), others, strict=True)
            )
        if not self._own_answers:
            outputs = respond(self.model, points, check=self.finiteness.note)
        return outputs, gradient

    def _loss_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        check = self.finiteness.note
        return loss_gradient(self._through, points, self.targets, self.loss, check=check)

    def losses(self, outputs: Tensor) -> Tensor:
        """(N,)."""
        return self.loss(outputs, self.targets)

    def standing(self, points: Tensor, outputs: Tensor) -> Tensor:
        """(N,) bool: a point has more than the lowest score."""
        # An unchanged image passed its clean verdict; another batch's rounding must not end its search.
        unchanged = (points == self.x).flatten(1).all(1)
        return (self.task.score(outputs, self.y) > self.task.floor) | unchanged

    def go_on(self, points: Tensor, outputs: Tensor) -> Tensor:
        """Indices (M,) of the samples that still stand; from now on all is about them alone."""
        # The one wait of a step: its length says all that a search has to know.
        places = self.standing(points, outputs).nonzero().squeeze(1)
        if len(places) < len(points):
            self._keep(places)
        return places

    def _keep(self, places: Tensor) -> None:
        self.x, self.y, self.targets = self.x[places], self.y[places], self.targets[places]
        keep = getattr(self._through, "keep_samples", None)
        if keep is not None and self._through is not self.model:
            keep(places)
