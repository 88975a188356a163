"""The residual backbone shared by ``resnet18`` and ``sresnet18``.

Wiring of ResNet-18 with the activation after the addition, so a spiking block puts out binary spikes
(SpikingJelly's ``spiking_resnet18``; parameter names are torchvision's). Time is folded into the batch for
convolutions and normalisation and unfolded for the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.kernels.convolution import Conv2d
from tdsnn.models._base import Model
from tdsnn.models._neurons import State, bn_add_act, has_hooks
from tdsnn.topography.layouts import SheetSpec

Activation = Callable[[], nn.Module]

SHEETS = (
    SheetSpec("layer1.0", 2.4, "maps"),
    SheetSpec("layer1.1", 2.4, "maps"),
    SheetSpec("layer2.0", 36.75, "maps"),
    SheetSpec("layer2.1", 36.75, "maps"),
    SheetSpec("layer3.0", 35.0, "maps"),
    SheetSpec("layer3.1", 22.4, "maps"),
    SheetSpec("layer4.0", 70.0, "maps"),
    SheetSpec("layer4.1", 70.0, "maps"),
)
"""Side of each block's sheet: retina, V1, V2, V4, IT as in TDANN's ResNet-18."""
_STEMS = ("cifar", "imagenet")


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; (T, N, C, H, W) in and out."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation()
        self.conv2 = Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.act2 = activation()

    def forward(self, x_TNCHW: Tensor, state: State | None = None, name: str = "") -> Tensor:
        """``state`` as for :class:`LIF`; ``name`` is what the names of its potentials begin with."""
        steps = len(x_TNCHW)
        x = x_TNCHW.flatten(0, 1)
        hidden = bn_add_act(self.act1, self.bn1, self.conv1(x), steps=steps, state=state, name=f"{name}.act1")
        shortcut, shortcut_bn = self._shortcut(x)
        return bn_add_act(
            self.act2,
            self.bn2,
            self.conv2(hidden.flatten(0, 1)),
            steps=steps,
            shortcut=shortcut,
            shortcut_bn=shortcut_bn,
            state=state,
            name=f"{name}.act2",
        )

    def _shortcut(self, x: Tensor) -> tuple[Tensor, nn.BatchNorm2d | None]:
        """The shortcut, and the normalisation that it still lacks."""
        if self.downsample is None:
            return x, None
        if has_hooks(self.downsample):
            return self.downsample(x), None
        conv, bn = self.downsample
        assert isinstance(bn, nn.BatchNorm2d)
        return conv(x), bn


class Stage(nn.Sequential):
    """Blocks one after the other; (T, N, C, H, W) in and out."""

    def forward(self, x_TNCHW: Tensor, state: State | None = None, name: str = "") -> Tensor:
        for child, block in self.named_children():
            x_TNCHW = block(x_TNCHW, state, f"{name}.{child}")
        return x_TNCHW


class ResNet18(Model):
    """ResNet-18 with a chosen activation; blocks of ``width`` x 1, 2, 4, 8 channels.

    Args:
        activation: makes one activation module; called 17 times.
        width: channels of the first stage, at least 1.
        stem: ``cifar`` (3x3, stride 1) or ``imagenet`` (7x7, stride 2, max-pool).
    """

    def __init__(
        self,
        *,
        architecture: str,
        arguments: dict[str, Any],
        activation: Activation,
        width: int,
        timesteps: int,
        num_classes: int,
        in_channels: int,
        stem: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        for label, value in (("width", width), ("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise UsageError(f"{label} must be at least 1, not {value}.")
        if stem not in _STEMS:
            raise UsageError(f"The stem '{stem}' is not known; the known ones are {' and '.join(_STEMS)}.")
        super().__init__(
            architecture=architecture,
            arguments=arguments,
            timesteps=timesteps,
            num_classes=num_classes,
            in_channels=in_channels,
            mean=mean,
            std=std,
            sheet_specs=SHEETS,
        )
        large = stem == "imagenet"
        self.conv1 = Conv2d(
            in_channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = activation()
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        channels = width
        for stage in range(1, 5):
            out = width * 2 ** (stage - 1)
            first = Block(channels, out, stride=1 if stage == 1 else 2, activation=activation)
            second = Block(out, out, stride=1, activation=activation)
            self.add_module(f"layer{stage}", Stage(first, second))
            channels = out
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def encode(self, x: Tensor) -> Tensor:
        """The first convolution (N, C, H, W): the image is constant, so it runs once."""
        current: Tensor = self.conv1(super().encode(x))
        return current

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        logits, after = self.unroll(encoded, 1, state)
        return logits[0], after

    def unroll(
        self, encoded: Tensor, timesteps: int, state: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """All steps of a layer at once, before those of the next."""
        potentials = None if state is None else dict(state)
        x_TNCHW = self._stem(encoded, timesteps, potentials)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x_TNCHW = self.get_submodule(name)(x_TNCHW, potentials, name)
        logits: Tensor = self.fc(x_TNCHW.mean((3, 4)))
        return logits, potentials or {}

    def _stem(self, current: Tensor, timesteps: int, potentials: State | None) -> Tensor:
        """Spikes (T, N, C, H, W) of the first layer."""
        spikes = bn_add_act(
            self.act1, self.bn1, current, steps=timesteps, constant=True, state=potentials, name="act1"
        )
        pooled: Tensor = self.pool(spikes.flatten(0, 1))
        return pooled.view(*spikes.shape[:2], *pooled.shape[1:])
