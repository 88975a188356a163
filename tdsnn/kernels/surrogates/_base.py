"""The contract of surrogates."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdsnn.errors import GateError
from tdsnn.kernels.lif import LIFConfig, backward_through_time

Memory = dict[str, Tensor]
"""What a surrogate has noted about the samples of a batch in one layer: a name to a tensor (T, N, ...)."""


@dataclass(frozen=True, kw_only=True)
class BackwardPass:
    """What one backward pass of N samples meets in one layer, S places of C channels each."""

    config: LIFConfig
    current: Tensor
    """(T, N, S, C), fp32."""
    potentials: Tensor
    """(T, N, S, C) before firing."""
    grad_spikes: Tensor
    """(T, N, S, C), of the loss at the spikes."""
    grad_last: Tensor
    """(N, S, C), of the loss at the potential after the last step."""
    memory: Memory
    """Empty at first; what a surrogate leaves here it finds in the next pass of the same samples."""

    @property
    def above(self) -> Tensor:
        """Distances of the potentials from the threshold, (T, N, S, C)."""
        return self.potentials - self.config.v_threshold


@dataclass(frozen=True)
class Surrogate(ABC):
    """What an attack differentiates through in place of spikes. Spikes themselves never change.

    A module offers it by a method ``with_surrogate(surrogate)``, which returns a module that shares the
    weights, answers the same and differs in the gradient; the module itself if it has no spikes. Networks of
    other libraries can be wrapped so, with an autograd function whose backward multiplies by
    :attr:`derivative`; that raises for the surrogates which need more than the potential at one step.
    """

    name: str
    """As it is typed, without the number."""
    constant: float | None = None
    """The number that is typed after the name; None for a surrogate without one."""

    replaces_spikes: ClassVar[bool] = False
    """Whether gradients are those of another network, without spikes; only then answers differ."""

    def __str__(self) -> str:
        return self.name if self.constant is None else f"{self.name}-{self.constant:g}"

    @property
    def derivative(self) -> Callable[[Tensor], Tensor]:
        """Derivative of a spike with respect to u = potential before firing - threshold, elementwise.

        Raises:
            GateError: it is not a function of u alone.
        """
        raise GateError(
            f"The surrogate {self} is no function of the potential alone, and this network takes no other.",
            hint="Take a shape: atan-4, sigmoid-4, triangle-1, rectangle-1, gaussian-1 or straight-through.",
        )

    def slopes(self, above: Tensor, memory: Memory) -> Tensor:
        """Derivatives of all spikes, of distances from the threshold; both (T, N, S, C)."""
        return self.derivative(above)

    def gradients(self, layer: BackwardPass) -> tuple[Tensor, Tensor]:
        """Gradients at the currents (T, N, S, C) and at the initial potential (N, S, C).

        Here those of backpropagation through time with :meth:`slopes`.
        """
        slopes = self.slopes(layer.above, layer.memory)
        return backward_through_time(
            layer.config,
            layer.potentials.unbind(0),
            layer.grad_spikes,
            layer.grad_last,
            slope=lambda step, _: slopes[step],
        )

    def statistics(self, shape: torch.Size, memory: Memory) -> tuple[float, Tensor, Tensor] | None:
        """What the compiled operator needs for :meth:`slopes` of distances (T, N, S, C); None: it cannot.

        Of an arctangent whose sharpness is w / (M + 1.5 D + 1e-4): w, and the tensors M and D (T, N, S, C) in
        fp32, which the operator brings up to date.
        """
        return None
