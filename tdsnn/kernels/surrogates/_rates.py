"""Surrogates that leave out how potentials go on from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdsnn.kernels.lif import LIFConfig
from tdsnn.kernels.surrogates._base import BackwardPass, Surrogate
from tdsnn.kernels.surrogates._shapes import SHAPES

RGA_SLOPE = 0.2
"""Slope of a neuron that does not fire yet."""
RGA_REACH = 2.0
"""Mean input, in thresholds, from which on a neuron is saturated."""


def _input_gain(config: LIFConfig) -> float:
    return 1 / config.tau if config.decay_input else 1.0


def _without_memory(layer: BackwardPass, to_current: Tensor) -> tuple[Tensor, Tensor]:
    return to_current, torch.zeros_like(layer.grad_last)


@dataclass(frozen=True)
class Hart(Surrogate):
    """Hybrid adversarial attack by rate and time, HART (Hao et al., 2024, openreview xv8iGxENyI).

    Nothing flows from step to step, the derivative is a triangle, and all steps receive the mean over time of
    the gradient at their current. The constant is the triangle's half width, gamma.
    """

    def gradients(self, layer: BackwardPass) -> tuple[Tensor, Tensor]:
        assert self.constant is not None
        slopes = SHAPES["triangle"](layer.above, 1 / self.constant)
        mean = (layer.grad_spikes * slopes).mean(0) * _input_gain(layer.config)
        return _without_memory(layer, mean.expand_as(layer.current))


@dataclass(frozen=True)
class Rate(Surrogate):
    """Backward pass through rate, BPTR (Ding et al., 2022, SNN-RAT, NeurIPS).

    The gradient passes a neuron unchanged if it fired at any step, and else not at all.
    """

    def gradients(self, layer: BackwardPass) -> tuple[Tensor, Tensor]:
        fired = (layer.above >= 0).any(0)
        return _without_memory(layer, layer.grad_spikes * fired)


@dataclass(frozen=True)
class RateGradient(Surrogate):
    """Rate gradient approximation, RGA (Bu et al., 2023, doi:10.1109/CVPR52729.2023.00763).

    The gradient of each step is multiplied by the slope of firing rate against mean input, made of two
    straight pieces: 0.2 below the input that makes the neuron fire, then up to saturation at 2 thresholds
    what reaches a rate of 1 there. It was derived for inputs that are not divided by tau; where they are,
    their mean is what arrives after the division.
    """

    def gradients(self, layer: BackwardPass) -> tuple[Tensor, Tensor]:
        threshold, gain = layer.config.v_threshold, _input_gain(layer.config)
        leak = 1 - 1 / layer.config.tau
        mean = gain * layer.current.mean(0)
        fires = (1 - leak) * threshold
        steep = (1 - RGA_SLOPE * fires) / ((RGA_REACH - (1 - leak)) * threshold)
        slope = torch.where(mean > fires, steep, RGA_SLOPE) * ((mean >= 0) & (mean <= RGA_REACH * threshold))
        return _without_memory(layer, layer.grad_spikes * slope * gain)


@dataclass(frozen=True)
class ClippedReLU(Surrogate):
    """The same weights without spikes: neurons put out their mean input in thresholds, clipped to [0, 1].

    A neuron that receives one threshold at each step fires at each, so that is the rate 1. Gradients are
    exact but those of this other network, so an attack through them is a transfer (Papernot et al., 2016,
    arXiv:1605.07277).
    """

    replaces_spikes: ClassVar[bool] = True

    def rates(self, current_TN: Tensor, config: LIFConfig) -> Tensor:
        """Rates (T, N, ...), the same at each step."""
        gain = _input_gain(config) / config.v_threshold
        return (gain * current_TN.mean(0)).clamp(0, 1).expand_as(current_TN)
