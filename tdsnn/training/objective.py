"""What one training step minimises: the task's loss, a spatial loss, and a price on spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.errors import GateError
from tdsnn.models._base import Model
from tdsnn.processes import ALONE, Team
from tdsnn.schema import Manifest
from tdsnn.tasks._base import Task
from tdsnn.topography.losses._base import SPATIAL_LOSSES, SpatialLoss, gradient_shares
from tdsnn.topography.outputs import capture_outputs
from tdsnn.training._draws import generator


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one batch."""

    total: Tensor
    parts: dict[str, Tensor]
    """For the log, before weighting; ``accuracy`` is the mean score of the task."""
    shares: dict[str, float] | None
    """Term to its share of the gradient's norm, where it was asked for."""


class Objective:
    """The weighted sum of all terms of a manifest.

    Args:
        task: what is learned, and how answers are scored.
        model: with its sheets, whose layers the terms look at.
        compiled: whether the spatial loss may use the compiled operators.
        team: the processes that share each batch equally.
    """

    def __init__(
        self, manifest: Manifest, task: Task, model: Model, *, compiled: bool, team: Team = ALONE
    ) -> None:
        self._manifest, self._task, self._model, self._team = manifest, task, model, team
        self.spatial: SpatialLoss | None = None
        if manifest.topographic:
            self.spatial = SPATIAL_LOSSES.load(manifest.topography.loss)(model, manifest.topography)
            self.spatial.compiled, self.spatial.team = compiled, team
        layers = set(self.spatial.layers) if self.spatial else set()
        layers |= set(model.sheet_layers) if manifest.recipe.rate_penalty else set()
        self._layers = sorted(layers)

    def __call__(
        self,
        forward: Callable[[Tensor], Tensor],
        images: Tensor,
        targets: Tensor,
        *,
        epoch: int,
        step: int,
        fraction: float,
        with_shares: bool,
    ) -> Losses:
        """Losses of a batch.

        Args:
            forward: images to outputs through the model, perhaps wrapped.
            images: (N, C, H, W) in [0, 1].
            targets: (N,), or of mixtures of classes (N, K), the share of each.
            epoch, step: where the run stands; they fix the draws of the spatial loss.
            fraction: of the present epoch that is done, for the warm-up of the spatial loss.
            with_shares: whether to compute the shares of the gradient, at full weight: during the warm-up
                they already show what is to come.
        """
        recipe = self._manifest.recipe
        with capture_outputs(self._model, self._layers) as layers:
            outputs = answer(forward, images, recipe.precision)
            loss = self._task.training_loss(outputs, targets, label_smoothing=recipe.label_smoothing)
            # Of a mixture the class that it has most of.
            labels = targets.argmax(1) if targets.ndim > 1 else targets
            score = self._task.score(outputs.detach(), labels).float().mean()
            parts = {"task": loss.detach(), "accuracy": score}
            terms = {"task": loss}
            if recipe.rate_penalty:
                means = [layers[name].mean(dtype=torch.float32) for name in self._layers]
                rate = torch.stack(means).mean()
                parts["rate"] = rate.detach()
                terms["rate"] = recipe.rate_penalty * rate
            shares = None
            if self.spatial:
                spatial = self.spatial(layers, generator=generator(recipe.seed, "clusters", epoch, step))
                if images.is_cuda:
                    # The CPU has time while the GPU works; after the last step of an epoch it is for nothing.
                    self.spatial.ahead(generator(recipe.seed, "clusters", epoch, step + 1))
                parts |= spatial.parts
                if with_shares:
                    shares = gradient_shares(terms | spatial.terms, self._model.parameters(), team=self._team)
                terms["spatial"] = self._ramp(epoch + fraction) * spatial.total
        return Losses(total=torch.stack(tuple(terms.values())).sum(), parts=parts, shares=shares)

    def _ramp(self, epochs_done: float) -> float:
        warmup = self._manifest.topography.warmup_epochs
        return min(1.0, epochs_done / warmup) if warmup else 1.0


def answer(forward: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    """Outputs (N, K) in fp32 of a pass in the recipe's precision."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return forward(images).float()


def diverged(what: str, *, epoch: int, step: int, found: Mapping[str, float] | None = None) -> GateError:
    """The error that ends a run.

    Args:
        what: is not finite.
        epoch, step: where, counted from 0.
        found: what is known of the step besides.
    """
    values = ", ".join(f"{name} {value:.3g}" for name, value in (found or {}).items())
    return GateError(
        f"The {what} of epoch {epoch + 1}, step {step + 1} is not finite{f' ({values})' if values else ''}; "
        "the run ended.",
        hint="Start anew with a smaller rate, e.g. --set lr=1e-3, and another --run-dir.",
    )
