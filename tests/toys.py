"""Small models whose behaviour under attack is known, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from tdsnn.data._base import Split
from tdsnn.models._base import Model
from tdsnn.models._neurons import State

CLASSES, CHANNELS, SIZE = 3, 1, 4


class Linear(Model):
    """Logits linear in the pixels, so the worst case in an Linf ball is known in closed form."""

    def __init__(
        self,
        seed: int = 0,
        twist: Callable[[Tensor, Tensor], Tensor] | None = None,
        classes: int = CLASSES,
    ) -> None:
        """``twist(x, logits)`` may replace the logits (N, K); its ``x`` is normalised, in [-0.5, 0.5]."""
        super().__init__(
            architecture="linear",
            arguments={"seed": seed},
            timesteps=1,
            num_classes=classes,
            in_channels=CHANNELS,
            mean=(0.5,),
            std=(1.0,),
            sheet_specs=(),
        )
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, CHANNELS * SIZE * SIZE, generator=generator)
        self.weight = torch.nn.Parameter(weight)
        self.dropout = torch.nn.Dropout(0.5)
        self.twist = twist
        self.images_seen = 0

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        self.images_seen += len(x)
        logits = self.dropout(x.flatten(1)) @ self.weight.T
        if self.twist is not None:
            logits = self.twist(x, logits)
        return logits, dict(state)


def flat(classes: int = CLASSES) -> Linear:
    """The linear model without an input gradient: PGD can only return its random start."""
    return Linear(
        classes=classes, twist=lambda x, logits: logits.detach() + 0 * x.flatten(1).sum(1, keepdim=True)
    )


def images(n: int, *, seed: int = 0) -> Tensor:
    """(n, 1, 4, 4) in [0.3, 0.7], so that no ball of radius up to 0.3 meets the pixel range."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(n, CHANNELS, SIZE, SIZE, generator=generator)


def batch(model: Linear, n: int) -> tuple[Tensor, Tensor]:
    """Images and labels; every fourth label is not the model's prediction."""
    x = images(n)
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
    y[::4] = (y[::4] + 1) % model.num_classes
    return x, y


def linear_survivors(model: Linear, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """(N,) bool: no point of the ball is misclassified; exact while the ball stays inside [0, 1]."""
    logits = (x - 0.5).flatten(1) @ model.weight.T
    others = [(y + shift) % model.num_classes for shift in range(1, model.num_classes)]
    gaps = []
    for other in others:
        margin = (logits.gather(1, y[:, None]) - logits.gather(1, other[:, None])).squeeze(1)
        gaps.append(margin - eps * (model.weight[y] - model.weight[other]).abs().sum(1))
    return torch.stack(gaps).amin(0) > 0


def split(model: Linear, n: int) -> Split:
    """A test split that ``model`` gets right in three of four images."""
    pixels = (255 * images(n)).round().to(torch.uint8)
    with torch.no_grad():
        labels = model.eval()(pixels / 255).argmax(1)
    labels[::4] = (labels[::4] + 1) % CLASSES
    return Split(
        images=pixels.numpy(),
        labels=labels.numpy().astype(np.int64),
        classes=("a", "b", "c"),
        digest="0" * 64,
        pinned=False,
        origin="toy",
    )
