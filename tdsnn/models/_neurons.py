"""The LIF layer over several time steps, from one explicit state to the next.

The operators of :mod:`tdsnn.kernels` run where a network was compiled and they take what it computes. Else
SpikingJelly's kernels run on NVIDIA's GPUs, and the eager equivalent on AMD's (ROCm), which those refuse, and
on CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from tdsnn.errors import UsageError
from tdsnn.kernels.bn_add_lif import bn_add_lif, supports
from tdsnn.kernels.lif import LIFConfig, lif, potential_dtype
from tdsnn.kernels.moments import Normalisation, normalisation
from tdsnn.kernels.surrogates import ClippedReLU, Memory, Surrogate, surrogated

State = dict[str, Tensor]
"""All that a network remembers from one time step to the next: a name to a tensor (N, ...) of its samples."""


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: input current (T, N, ...) to spikes (T, N, ...) in {0, 1}."""

    def __init__(self, config: LIFConfig) -> None:
        super().__init__()
        self.config = config
        self.compiled = False
        """Whether the compiled operators may run."""
        self.surrogate: Surrogate | None = None
        """What takes the place of the derivative that the configuration says."""
        self.memory: Memory = {}
        """What that has noted about the samples of a batch."""

    def differentiate_through(self, surrogate: Surrogate) -> None:
        """Take another derivative of the spikes from now on; nothing is noted yet."""
        self.memory = {}
        if surrogate.name == self.config.surrogate and surrogate.constant is not None:
            self.config, self.surrogate = replace(self.config, surrogate_alpha=surrogate.constant), None
        else:
            self.surrogate = surrogate

    def forward(self, current_TN: Tensor, state: State | None = None, name: str = "") -> Tensor:
        """Spikes of T steps.

        Args:
            state: the potential (N, ...) before the first step is taken from it and the one after the last
                step put into it; without one under ``name`` neurons start at rest. None starts at rest and
                forgets.
            name: of this layer's potential in the state.

        Raises:
            UsageError: a potential of another shape than the current.
        """
        initial = initial_potential(state, name, current_TN.shape[1:])
        if isinstance(self.surrogate, ClippedReLU):
            return self.surrogate.rates(current_TN, self.config)
        if self.surrogate is not None:
            spikes, last = self._surrogated(current_TN, initial)
        elif self._compiles(current_TN) or not current_TN.is_cuda or torch.version.hip is not None:
            spikes, last = self._own(current_TN, initial, keep_last=state is not None)
        else:
            spikes, last = _spikingjelly(self.config, current_TN, initial)
        if state is not None:
            state[name] = last
        return spikes

    def _compiles(self, current_TN: Tensor) -> bool:
        """Whether the compiled operator is to run on this current."""
        return self.compiled and supports(current_TN, len(current_TN))

    def _own(self, current_TN: Tensor, initial: Tensor | None, *, keep_last: bool) -> tuple[Tensor, Tensor]:
        steps = len(current_TN)
        # A view in the order of memory: neurons are independent, so their layout does not matter.
        order = sorted(range(1, current_TN.ndim), key=lambda axis: current_TN.stride(axis), reverse=True)
        inverse = [order.index(axis) for axis in range(1, current_TN.ndim)]
        laid_out = current_TN.permute(0, *order)
        if initial is not None:
            initial = initial.to(potential_dtype(current_TN)).permute([axis - 1 for axis in order]).flatten()
        if self._compiles(current_TN):
            spikes, last = bn_add_lif(
                laid_out.reshape(steps, -1, 1),
                self.config,
                steps=steps,
                initial=None if initial is None else initial[:, None],
                keep_last=keep_last,
            )
        else:
            spikes, last = lif(laid_out.flatten(1), self.config, initial)
        spikes = spikes.view(laid_out.shape).permute(0, *(axis + 1 for axis in inverse))
        return spikes, last.view(laid_out.shape[1:]).permute(inverse) if keep_last else last

    def _surrogated(self, current_TN: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        # Surrogates may tell channels apart, so those come last, and a single one is a channel too.
        steps, samples = current_TN.shape[:2]
        laid_out = current_TN.movedim(2, -1) if current_TN.ndim > 2 else current_TN[..., None]
        channels = laid_out.shape[-1]
        if initial is not None:
            initial = initial.to(potential_dtype(current_TN))
            initial = (initial.movedim(1, -1) if initial.ndim > 1 else initial).reshape(-1, channels)
        rows = laid_out.reshape(steps, -1, channels)
        spikes, last = bn_add_lif(
            rows,
            self.config,
            steps=steps,
            initial=initial,
            keep_last=True,
            operator=self.operator(samples, compiled=self._compiles(rows)),
        )
        spikes, last = spikes.view(laid_out.shape), last.view(laid_out.shape[1:])
        if current_TN.ndim == 2:
            return spikes[..., 0], last[..., 0]
        return spikes.movedim(-1, 2), last.movedim(-1, 1)

    def operator(self, samples: int, *, compiled: bool) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """What :func:`bn_add_lif` is to call for a batch of N samples; None: the compiled operator."""
        if self.surrogate is None:
            return None
        return partial(surrogated, self.surrogate, self.memory, samples, compiled)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in asdict(self.config).items())


def initial_potential(state: State | None, name: str, shape: torch.Size) -> Tensor | None:
    """The potential of a layer in a state, or None for at rest.

    Raises:
        UsageError: it has another shape.
    """
    potential = None if state is None else state.get(name)
    if potential is not None and potential.shape != shape:
        raise UsageError(
            f"The state has '{name}' of shape {tuple(potential.shape)} for currents of shape {tuple(shape)}.",
            hint="A state belongs to the samples that it was computed for: select the same of both.",
        )
    return potential


def bn_add_act(
    activation: nn.Module,
    bn: nn.BatchNorm2d,
    current: Tensor,
    *,
    steps: int,
    constant: bool = False,
    shortcut: Tensor | None = None,
    shortcut_bn: nn.BatchNorm2d | None = None,
    state: State | None = None,
    name: str = "",
) -> Tensor:
    """``activation(bn(current) + shortcut_bn(shortcut))``, as one operator where there is one.

    Args:
        current: (T * N, C, H, W), or (N, C, H, W) if it is ``constant``: the same at every step.
        steps: T.
        shortcut: (T * N, C, H, W), or None; added as it is without ``shortcut_bn``.
        state, name: for a :class:`LIF`, as there.

    Returns:
        (T, N, C, H, W).
    """
    norms = [norm for norm in (bn, shortcut_bn) if norm is not None]
    if (
        type(activation) is LIF
        and activation.compiled
        and not isinstance(activation.surrogate, ClippedReLU)
        and supports(current, steps)
        and (shortcut is None or shortcut.dtype == current.dtype)
        and all(_is_plain(norm) for norm in norms)
        and current.numel() > current.shape[1]  # PyTorch refuses to normalise over a single value
        and not any(has_hooks(module) for module in (*norms, activation))
    ):
        return _fused(activation, bn, current, steps, constant, shortcut, shortcut_bn, state, name)
    out = bn(current)
    if shortcut is not None:
        out = out + (shortcut if shortcut_bn is None else shortcut_bn(shortcut))
    out_TN = out.expand(steps, *out.shape) if constant else out.unflatten(0, (steps, -1))
    spikes: Tensor = activation(out_TN, state, name) if isinstance(activation, LIF) else activation(out_TN)
    return spikes


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Whether the operator computes this normalisation."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.weight.dtype == torch.float32
        and norm.running_mean is not None
        and norm.running_mean.dtype == torch.float32
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody listens to this module, which therefore must not be bypassed."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
    )


def _fused(
    activation: LIF,
    bn: nn.BatchNorm2d,
    current: Tensor,
    steps: int,
    constant: bool,
    shortcut: Tensor | None,
    shortcut_bn: nn.BatchNorm2d | None,
    state: State | None,
    name: str,
) -> Tensor:
    channels, height, width = current.shape[1:]
    images = len(current) // (1 if constant else steps)
    initial = initial_potential(state, name, torch.Size((images, channels, height, width)))
    rows = _channels_last(current)
    normalise, normalise_shortcut, shortcut_rows = normalisation(bn, rows), Normalisation(), None
    if shortcut is not None:
        shortcut_rows = _channels_last(shortcut)
        if shortcut_bn is not None:
            normalise_shortcut = normalisation(shortcut_bn, shortcut_rows)
        shortcut_rows = shortcut_rows.view(steps, -1, channels)
    spikes, last = bn_add_lif(
        rows if constant else rows.view(steps, -1, channels),
        activation.config,
        steps=steps,
        normalise=normalise,
        shortcut=shortcut_rows,
        normalise_shortcut=normalise_shortcut,
        initial=None if initial is None else _channels_last(initial.float()),
        keep_last=state is not None,
        operator=activation.operator(images, compiled=True),
    )
    if state is not None:
        state[name] = last.view(images, height, width, channels).permute(0, 3, 1, 2)
    return spikes.view(steps, images, height, width, channels).permute(0, 1, 4, 2, 3)


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) as rows of channels (N * H * W, C); a view if that is how they lie in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()


def _spikingjelly(config: LIFConfig, current_TN: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    from spikingjelly.activation_based import functional, surrogate

    if initial is None:
        initial = torch.full_like(current_TN[0], config.v_rest, dtype=potential_dtype(current_TN))
    # Its kernels are launched on the current device, wherever the tensors are.
    with torch.cuda.device(current_TN.device) if current_TN.is_cuda else nullcontext():
        spikes, last, _ = functional.lif_multi_step(
            current_TN,
            initial,
            tau=config.tau,
            decay_input=config.decay_input,
            v_threshold=config.v_threshold,
            v_reset=config.v_reset,
            surrogate_function=surrogate.ATan(alpha=config.surrogate_alpha),
            detach_reset=config.detach_reset,
        )
    return spikes, last
