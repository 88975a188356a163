"""Somebody else's network as a model of the benchmark: any PyTorch, SpikingJelly or snnTorch module."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tdsnn.errors import GateError, UsageError
from tdsnn.kernels.surrogates import Surrogate
from tdsnn.models._foreign_spikes import OtherDerivative, slopes_of, spiking_layers
from tdsnn.models._neurons import LIF

__all__ = ["Adapted", "adapt"]

Time = Literal["inside", "loop", "sequence"]
_RESETS = ("reset", "reset_mem")
"""What the layers of SpikingJelly and of snnTorch call the function that forgets their potentials."""


class Adapted(nn.Module):
    """A network of any library: images (N, C, H, W) in [0, 1] to outputs (N, K), nothing remembered.

    Made by :func:`adapt`.
    """

    architecture = "adapted"

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        time: Time,
        timesteps: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        encode: Callable[[Tensor, int], Tensor] | None,
        output: int | None,
        reset: Callable[[nn.Module], None] | None,
    ) -> None:
        super().__init__()
        self.net = net
        self.name, self.time, self.timesteps = name, time, timesteps
        self._scale = None if mean is None or std is None else (tuple(mean), tuple(std))
        self._encode, self._output, self._reset = encode, output, reset

    @property
    def arguments(self) -> dict[str, Any]:
        """What changes the answers besides the network."""
        return {
            "time": self.time,
            "normalisation": self._scale,
            "encode": None if self._encode is None else _spelled(self._encode),
            "output": self._output,
            "reset": None if self._reset is None else _spelled(self._reset),
        }

    @property
    def neurons(self) -> list[LIF]:
        """No layers of this project."""
        return []

    @property
    def spiking(self) -> bool:
        """Whether it has spikes: layers of SpikingJelly or snnTorch, or a time axis that is stepped here."""
        return bool(spiking_layers(self.net)) or self.time != "inside"

    @property
    def surrogates(self) -> list[str]:
        """What stands in for the derivative of spikes in the layers that were found to have them."""
        functions = [getattr(layer, place) for layer, place in spiking_layers(self.net)]
        return list(dict.fromkeys(map(_spelled, functions)))

    @property
    def weights_sha256(self) -> str:
        """Digest of all parameters and buffers by name, 64 hex digits."""
        self.forget()
        digest = hashlib.sha256()
        for key, value in sorted(self.net.state_dict().items()):
            if isinstance(value, Tensor):
                content = value.detach().cpu().contiguous()
                digest.update(f"{key} {content.dtype} {tuple(content.shape)} ".encode())
                digest.update(content.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def forget(self) -> None:
        """Let every layer forget its potentials."""
        for other in self._others():
            other.calls = 0
        if self._reset is not None:
            self._reset(self.net)
            return
        for layer in self.net.modules():
            for place in _RESETS:
                # snnTorch's layers also have a tensor of that name.
                if callable(found := getattr(layer, place, None)):
                    found()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, K) of images (N, C, H, W) in [0, 1], the mean over time steps.

        Raises:
            UsageError: the network gives no tensor, or one of another shape than its time axis asks for.
        """
        self.forget()
        x = self._normalised(x)
        if self.time == "inside":
            found = self._chosen(self.net(self._encoded(x, 0)))
            return self._mean(found, x) if found.ndim == 3 else self._checked(found, x)
        steps = [self._encoded(x, step) for step in range(self.timesteps)]
        if self.time == "sequence":
            return self._mean(self._chosen(self.net(torch.stack(steps))), x)
        return torch.stack([self._checked(self._chosen(self.net(step)), x) for step in steps]).mean(0)

    def outputs_of_frames(self, frames_TNCHW: Tensor) -> Tensor:
        """Outputs (T, N, K) where each time step sees an image of its own, (T, N, C, H, W) in [0, 1].

        Raises:
            GateError: the network has its time axis inside.
        """
        if self.time == "inside":
            raise GateError(
                f"{self.name} has its time axis inside: it cannot be shown another image at each time step.",
                hint="See tdsnn.adapt: time='loop' or 'sequence'.",
            )
        self.forget()
        steps = [self._encoded(self._normalised(x), step) for step, x in enumerate(frames_TNCHW)]
        if self.time == "sequence":
            return self._chosen(self.net(torch.stack(steps)))
        return torch.stack([self._checked(self._chosen(self.net(step)), step) for step in steps])

    def with_surrogate(self, surrogate: Surrogate) -> Adapted:
        """The same network with another derivative of its spikes, sharing all weights; itself without spikes.

        Raises:
            GateError: no spiking layer was found where there must be some, or the surrogate needs more than
                the potential of one step.
        """
        if not self.spiking:
            return self
        slopes = slopes_of(surrogate)
        if not spiking_layers(self.net):
            raise GateError(
                f"No spiking layers were found in {self.name}, so it has no surrogate to change.",
                hint="Found are those of SpikingJelly and snnTorch: layers with surrogate_function or "
                "spike_grad. Leave the attack its surrogate as trained.",
            )
        self.forget()
        shared = {id(one): one for one in (*self.parameters(), *self.buffers())}
        found = copy.deepcopy(self, shared)
        for layer, place in spiking_layers(found.net):
            setattr(layer, place, OtherDerivative(getattr(layer, place), slopes))
        return found

    def keep_samples(self, places: Tensor) -> None:
        """Let surrogates forget the samples of a batch that are not at ``places``, indices or (N,) bool."""
        for other in self._others():
            for memory in other.memories:
                memory |= {name: noted[:, places] for name, noted in memory.items()}

    def _others(self) -> list[OtherDerivative]:
        return [layer for layer in self.net.modules() if isinstance(layer, OtherDerivative)]

    def _normalised(self, x: Tensor) -> Tensor:
        if self._scale is None:
            return x
        mean, std = (torch.tensor(one).to(x).view(1, -1, 1, 1) for one in self._scale)
        return (x - mean) / std

    def _encoded(self, x: Tensor, step: int) -> Tensor:
        return x if self._encode is None else self._encode(x, step)

    def _chosen(self, found: Any) -> Tensor:
        if self._output is not None and isinstance(found, tuple | list) and self._output < len(found):
            found = found[self._output]
        if not isinstance(found, Tensor):
            raise UsageError(
                f"{self.name} returns {_described(found)}, not a tensor.",
                hint="Say which of several is the answer, e.g. tdsnn.adapt(net, output=0).",
            )
        return found

    def _mean(self, found: Tensor, x: Tensor) -> Tensor:
        if found.ndim != 3 or found.shape[1] != len(x):
            raise UsageError(
                f"{self.name} returns shape {tuple(found.shape)} for {len(x)} images; expected is "
                f"(T, {len(x)}, K), time first.",
                hint="See tdsnn.adapt: time='inside' for a network that returns (N, K), 'loop' for one step "
                "at a time.",
            )
        return found.mean(0)

    def _checked(self, found: Tensor, x: Tensor) -> Tensor:
        if found.ndim != 2 or len(found) != len(x):
            raise UsageError(
                f"{self.name} returns shape {tuple(found.shape)} for {len(x)} images; expected is "
                f"({len(x)}, K).",
                hint="See tdsnn.adapt: time='sequence' for a network that takes and returns all time steps "
                "at once; output=0 for one that returns several things.",
            )
        return found


def adapt(
    net: nn.Module,
    *,
    time: Time = "inside",
    timesteps: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    encode: Callable[[Tensor, int], Tensor] | None = None,
    output: int | None = None,
    reset: Callable[[nn.Module], None] | None = None,
    name: str | None = None,
) -> Adapted:
    """Wrap a network so that :func:`tdsnn.bench` takes it, in eval mode.

    Before every call the layers forget their potentials: all that have SpikingJelly's ``reset`` or snnTorch's
    ``reset_mem``, or what ``reset`` does. The gates of the benchmark refuse a network that still remembers,
    answers differently each time, or lets images of a batch influence each other.

    Args:
        net: the network; it is not copied.
        time: ``inside``: takes (N, C, H, W), returns (N, K), or (T, N, K), of which the mean is taken.
            ``loop``: the same, but is called once for each time step, and the mean of (N, K) is taken.
            ``sequence``: takes (T, N, C, H, W) and returns (T, N, K), as SpikingJelly's multi-step mode.
        timesteps: T, for ``loop`` and ``sequence``.
        mean, std: for each channel, of the normalisation that the network needs, of pixels in [0, 1].
        encode: (normalised images (N, C, H, W), number of the time step) to the input of that step; by
            default the images. Draws in it make a network random.
        output: which of several things that the network returns is the answer.
        reset: called with ``net`` in place of looking for layers.
        name: in tables; by default the class of ``net``.

    Raises:
        UsageError: a setting that cannot be.
    """
    if not isinstance(net, nn.Module):
        raise UsageError(f"tdsnn.adapt takes a torch.nn.Module, not {type(net).__name__}.")
    if time not in get_args(Time):
        raise UsageError(f"The time axis is {', '.join(map(repr, get_args(Time)))}, not {time!r}.")
    if not isinstance(timesteps, int) or timesteps < 1:
        raise UsageError(f"The number of time steps must be at least 1, not {timesteps}.")
    if (mean is None) != (std is None) or (std is not None and min(std) <= 0):
        raise UsageError(f"mean and std come together, std above 0; got {mean} and {std}.")
    return Adapted(
        net,
        name=name or type(net).__name__,
        time=time,
        timesteps=timesteps,
        mean=mean,
        std=std,
        encode=encode,
        output=output,
        reset=reset,
    ).eval()


def _spelled(function: object) -> str:
    """A function as a word that is the same in every process."""
    if isinstance(function, nn.Module):
        return repr(function)
    module = getattr(function, "__module__", type(function).__module__)
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _described(found: object) -> str:
    if isinstance(found, tuple | list):
        return f"{len(found)} things"
    return "a dictionary" if isinstance(found, Mapping) else type(found).__name__
