"""A network whose spikes are computed by hand, and exported files of it, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tdsnn.exporting.formats import Exported, Exporter, Metadata
from tdsnn.exporting.program import trace
from tdsnn.models import LIF, LIFConfig, Model, State

PIXEL = torch.full((1, 1, 1, 1), 0.7)
"""The image for which the tables below were computed."""
FIRST = [0, 1, 0, 1, 0]
"""Current 2 * (0.5 * (0.7 - 0.2) / 0.5 - 0.1) = 0.8; potentials 0.8, 1.2, 0.8, 1.2, 0.8."""
SECOND = [0, 0, 0, 1, 0]
"""Currents 0.15, 0.75, 0.15, 0.75, 0.15; potentials 0.15, 0.825, 0.5625, 1.03125, 0.15 after a reset to 0."""
LOGITS = {5: [0.9, -0.2], 4: [1.0, -0.25], 3: [0.5, 0.0]}
"""T to the means of 2 * spike + 0.5 and of -spike."""


class ByHand(Model):
    """Pixel, convolution, normalisation, neurons, convolution, neurons, linear readout; step by step."""

    def __init__(self, *, soft: bool = False, classes: int = 2, timesteps: int = 5) -> None:
        super().__init__(
            architecture="by_hand",
            arguments={"soft": soft, "classes": classes, "timesteps": timesteps},
            timesteps=timesteps,
            num_classes=classes,
            in_channels=1,
            mean=(0.2,),
            std=(0.5,),
            sheet_specs=(),
        )
        self.conv1 = nn.Conv2d(1, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(1, eps=0.0)
        self.first = LIF(LIFConfig(decay_input=False))
        self.conv2 = nn.Conv2d(1, 1, 1)
        self.second = LIF(LIFConfig(decay_input=False, v_reset=None if soft else 0.0))
        self.readout = nn.Linear(1, classes)
        with torch.no_grad():
            self.conv1.weight.fill_(0.5)
            self.norm.running_mean.fill_(0.1)
            self.norm.weight.fill_(2.0)
            self.conv2.weight.fill_(0.6)
            self.conv2.bias.fill_(0.15)
            self.readout.weight.zero_()
            self.readout.bias.zero_()
            self.readout.weight[:2, 0] = torch.tensor([2.0, -1.0])
            self.readout.bias[0] = 0.5

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        spikes = self.first(self.norm(self.conv1(encoded))[None], after, "first")[0]
        spikes = self.second(self.conv2(spikes)[None], after, "second")[0]
        return self.readout(spikes.mean((2, 3))), after


def by_hand(**arguments: bool | int) -> ByHand:
    return ByHand(**arguments).eval()


def metadata(model: Model, *, timesteps: int | None = None, shape: tuple[int, int, int]) -> Metadata:
    return Metadata(
        name="net.toys",
        architecture=model.architecture,
        weights_sha256="a" * 64,
        timesteps=model.count_steps(timesteps),
        image_shape=shape,
        labels=tuple(f"class '{index}', {{x}}" for index in range(model.num_classes)),
        dataset="toys",
        licence="",
        tdsnn_version="0.1.0",
    )


def write(
    exporter: Exporter,
    model: Model,
    path: Path,
    *,
    timesteps: int | None = None,
    shape: tuple[int, int, int] = (1, 1, 1),
) -> Exported:
    """Write a model and read it back."""
    about = metadata(model, timesteps=timesteps, shape=shape)
    path.write_bytes(exporter.encode(trace(model, shape, exporter.unrolled(about.timesteps)), about))
    return exporter.read(path)


def spikes_of(model: ByHand, images: Tensor, timesteps: int) -> dict[str, Tensor]:
    """Layer to spikes (T, N, 1, H, W), bool, of its steps one by one."""
    found: dict[str, list[Tensor]] = {"first": [], "second": []}
    hooks = [
        model.get_submodule(layer).register_forward_hook(
            lambda _m, _x, out, layer=layer: found[layer].append(out)
        )
        for layer in found
    ]
    with torch.no_grad():
        model(images, timesteps)
    for hook in hooks:
        hook.remove()
    return {layer: torch.cat(calls) > 0 for layer, calls in found.items()}
