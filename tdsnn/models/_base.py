"""The contract every model keeps, whatever its architecture (spiking or not)."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.kernels._library import library
from tdsnn.kernels._operators import is_transformed
from tdsnn.kernels.convolution import Conv2d, has_tiles
from tdsnn.kernels.gpu import _ready as gpu
from tdsnn.kernels.surrogates import Surrogate
from tdsnn.models._neurons import LIF, State
from tdsnn.models._pretrained import Pretrained
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import CorticalSheet

MOST_TIMESTEPS = 10_000
"""What nobody runs on purpose; a slip or a damaged file should not fill the memory."""
LARGEST_PIXEL = 10.0
"""Noise and other people's normalisation stay below; pixels from 0 to 255 do not."""


class Model(Pretrained, nn.Module, ABC):
    """An image classifier on virtual cortical sheets.

    ``model(x)`` takes ``x`` (N, C, H, W), float in [0, 1], and returns logits (N, K), the mean over time of
    the per-step logits. Normalisation, input encoding and the number of time steps are inside. Nothing is
    remembered between calls.

    An architecture implements :meth:`step`, one time step from an explicit state to the next, and
    :meth:`init_state` if it remembers more than potentials of LIF layers. It may override :meth:`unroll`, for
    speed: that must agree with stepping.

    Args:
        architecture: registered name that rebuilds this model from ``arguments``.
        arguments: plain values (as in a manifest or ``config.json``).
        timesteps: T, at least 1; a model without spikes has 1.
        mean, std: per-channel constants of the input normalisation, in units of [0, 1] pixels.
        sheet_specs: the modules whose outputs lie on cortical sheets, in which layout, and the sheets' sizes.
            In :meth:`step` such a module gives one time step, or leaves the axis of time out.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        architecture: str,
        arguments: Mapping[str, Any],
        timesteps: int,
        num_classes: int,
        in_channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        sheet_specs: Sequence[SheetSpec],
    ) -> None:
        super().__init__()
        _check_steps(timesteps)
        constants = [*mean, *std]
        if len(mean) != in_channels or len(std) != in_channels or not all(map(math.isfinite, constants)):
            raise UsageError(
                f"mean and std need {in_channels} values each (one per channel), finite numbers; "
                f"got {list(mean)} and {list(std)}."
            )
        if min(std) <= 0:
            raise UsageError(f"mean and std need std above 0 in every channel; got {list(std)}.")
        self.architecture = architecture
        self.arguments = dict(arguments)
        self.timesteps = timesteps
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.sheet_specs = {spec.layer: spec for spec in sheet_specs}
        self.sheet_layers = tuple(self.sheet_specs)
        self.sheets: dict[str, CorticalSheet] = {}
        # Constants of the architecture's arguments, so not part of the checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor, timesteps: int | None = None) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1], the mean over ``timesteps`` (default T)."""
        return self.logits_over_time(x, timesteps).mean(0)

    def logits_over_time(self, x: Tensor, timesteps: int | None = None) -> Tensor:
        """Logits of every time step, (T, N, K).

        Raises:
            UsageError: wrong number of dimensions or channels, or ``timesteps`` below 1.
        """
        logits, _ = self.unroll(self.encode(x), self.count_steps(timesteps))
        return logits

    def outputs_of_frames(self, frames_TNCHW: Tensor) -> Tensor:
        """Logits (T, N, K) where each time step sees an image of its own, (T, N, C, H, W) in [0, 1]."""
        state, logits = None, []
        for frame in frames_TNCHW:
            encoded = self.encode(frame)
            step_logits, state = self.step(encoded, self.init_state(encoded) if state is None else state)
            logits.append(step_logits)
        return torch.stack(logits)

    def count_steps(self, timesteps: int | None) -> int:
        """``timesteps``, or the model's own T for None.

        Raises:
            UsageError: ``timesteps`` below 1.
        """
        steps = self.timesteps if timesteps is None else timesteps
        _check_steps(steps)
        return steps

    def encode(self, x: Tensor) -> Tensor:
        """All that is the same at every step, (N, ...), for :meth:`step`; here the normalised images.

        They are cast to the type of the model's weights.

        Raises:
            UsageError: not a tensor, not floating point, wrong number of dimensions or channels; on CPU also
                pixels that are not finite, which spikes would hide, and pixels from 0 to 255.
        """
        if not isinstance(x, Tensor):
            raise UsageError(
                f"{self.architecture} takes float images as a tensor, not as {type(x).__name__}.",
                hint="Of a NumPy array in [0, 1]: torch.from_numpy(images).float()",
            )
        if x.ndim != 4 or x.shape[1] != self.in_channels or not x.is_floating_point():
            raise UsageError(
                f"{self.architecture} takes float images (N, {self.in_channels}, H, W) in [0, 1]; "
                f"got {x.dtype} of shape {tuple(x.shape)}."
            )
        # On a GPU one would have to wait for the answer; a transformation has no values to look at.
        if x.device.type == "cpu" and not is_transformed() and not torch.compiler.is_compiling():
            _check_pixels(x)
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def init_state(self, encoded: Tensor) -> State:
        """The state before the first step, for what :meth:`encode` gave.

        A LIF layer whose potential is missing starts at rest, so an architecture without other memory than
        theirs begins with nothing.
        """
        return {}

    @abstractmethod
    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """Logits (N, K) of one time step, and the state after it; the given one stays as it is.

        Gradients flow from both back into ``encoded`` and ``state``. In training mode batch normalisation
        takes the statistics of this one step.

        Args:
            encoded: what :meth:`encode` gave, (N, ...).
            state: what :meth:`init_state` or the step before gave, of the same samples.
        """

    def unroll(
        self, encoded: Tensor, timesteps: int, state: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Logits (T, N, K) of ``timesteps`` steps, and the state after them.

        Args:
            state: as for :meth:`step`; None begins a sequence that nobody goes on with: the state after it
                may be incomplete.
        """
        after = self.init_state(encoded) if state is None else dict(state)
        logits = []
        for _ in range(timesteps):
            step_logits, after = self.step(encoded, after)
            logits.append(step_logits)
        return torch.stack(logits), after

    def compile_operators(self) -> bool:
        """Let layers run through the operators of :mod:`tdsnn.kernels` on the device where the model is.

        Those for CPUs are made once, in about 30 s; those for NVIDIA's GPUs by Triton, each when it first
        runs. A process that does little else gains from :func:`tdsnn.kernels.memory.keep_freed_memory` too.

        Returns:
            Whether it worked; else the model stays on the path that :mod:`tdsnn.kernels.status` gives, with
            equal results.
        """
        device = self.mean.device
        on_cpu = device.type == "cpu"
        compiled = bool(library() if on_cpu else gpu.ready(device))
        for layer in self.modules():
            if isinstance(layer, LIF):
                layer.compiled = compiled
            elif isinstance(layer, Conv2d):
                layer.compiled = on_cpu and has_tiles()
        if compiled:
            self.to(memory_format=torch.channels_last)
        return compiled

    def with_surrogate(self, surrogate: Surrogate) -> Self:
        """This network with another derivative of its spikes, for attacks; itself if it has no spikes.

        Weights and buffers are shared, answers are the same bit for bit (but see
        ``Surrogate.replaces_spikes``), and this model stays as it is.
        """
        if not self.neurons:
            return self
        shared = (*self.parameters(), *self.buffers(), self.sheets)
        other = copy.deepcopy(self, {id(one): one for one in shared})
        for layer in other.neurons:
            layer.differentiate_through(surrogate)
        return other

    def keep_samples(self, places: Tensor) -> None:
        """Let surrogates forget the samples of a batch that are not at ``places``, indices or (N,) bool."""
        for layer in self.neurons:
            layer.memory |= {name: noted[:, places] for name, noted in layer.memory.items()}

    @property
    def neurons(self) -> list[LIF]:
        """The spiking layers; empty for a model without spikes."""
        return [module for module in self.modules() if isinstance(module, LIF)]


def _check_pixels(x: Tensor) -> None:
    # Both ends are NaN if one value is, and take a tenth of the time that looking at each value does.
    low, high = (float(end) for end in x.detach().aminmax()) if x.numel() else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(
            f"{int((~x.isfinite()).sum())} pixels of the images are not finite.",
            hint="Images are float in [0, 1]: find what made them NaN or infinite.",
        )
    if high > LARGEST_PIXEL:
        raise UsageError(
            f"The images have pixels up to {high:g}, and should be in [0, 1].",
            hint="Of pixels from 0 to 255: images.float() / 255. Normalisation is inside the model.",
        )


def _check_steps(timesteps: int) -> None:
    if timesteps < 1:
        raise UsageError(f"The number of time steps must be at least 1, not {timesteps}.")
    if timesteps > MOST_TIMESTEPS:
        raise UsageError(f"The number of time steps must be at most {MOST_TIMESTEPS:,}, not {timesteps:,}.")
    if timesteps % 1:
        raise UsageError(f"The number of time steps is a whole number, not {timesteps}.")
