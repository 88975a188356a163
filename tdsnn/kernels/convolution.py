"""A convolution whose weight gradient runs on AMX tiles where the CPU has them; all else is PyTorch's."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn.kernels._library import library
from tdsnn.kernels._operators import below_autograd, define, is_transformed

_CHANNELS = 32
"""With fewer channels PyTorch's weight gradient is as fast."""


class _Shape(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("images", "height", "width", "in_channels", "out_channels", "stride")
        ),
        ("threads", ctypes.c_int32),
    )


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with the same values; a faster weight gradient under bf16 autocast on CPU."""

    compiled = False
    """Whether the compiled operator may run; never set it where :func:`has_tiles` says no."""

    def forward(self, x: Tensor) -> Tensor:
        if self.compiled and self._fits_tiles(x):
            out: Tensor = _CONVOLUTION(x.to(torch.bfloat16), self.weight, self.stride[0])
            return out
        return super().forward(x)

    def _fits_tiles(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.ndim == 4
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and self.bias is None
            and self.kernel_size == (3, 3)
            and self.padding == (1, 1)
            and self.stride in ((1, 1), (2, 2))
            and self.dilation == (1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.in_channels % _CHANNELS == 0
            and self.out_channels % _CHANNELS == 0
            and not is_transformed()
        )


@cache
def has_tiles() -> bool:
    """Whether this CPU, system and compiler give us AMX tiles for bf16."""
    return bool(library()) and bool(library().call("tdsnn_weight_gradient_ready"))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        out: Tensor = below_autograd(_CONVOLUTION, x, weight, stride)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x_wanted, to_weight_wanted, _ = ctx.needs_input_grad
        # PyTorch's gradients can be differentiated themselves, if second derivatives may be asked for.
        from_pytorch = [to_x_wanted, to_weight_wanted and torch.is_grad_enabled(), False]
        to_x = to_weight = None
        if any(from_pytorch):
            stride = [ctx.stride, ctx.stride]
            to_x, to_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, _half(weight), None, stride, [1, 1], [1, 1], False, [0, 0], 1, from_pytorch
            )
        if to_weight_wanted and to_weight is None:
            to_weight = _WEIGHT_GRADIENT(x, grad, ctx.stride)
        return to_x, to_weight, None


def _half(weight: Tensor) -> Tensor:
    return weight.to(torch.bfloat16, memory_format=torch.channels_last)


def _convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, _half(weight), stride=stride, padding=1)


def weight_gradient(x: Tensor, grad: Tensor, stride: int) -> Tensor:
    """Gradient (C', C, 3, 3) in fp32, channels last, of a 3x3 convolution with padding 1.

    Args:
        x: input (N, C, H, W), bf16; C a multiple of 32.
        grad: gradient at the output (N, C', H', W'), bf16; C' a multiple of 32.
        stride: 1 or 2.
    """
    assert has_tiles(), "asked for first, because the answer also asks the system for the tiles"
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    images, channels, height, width = x.shape
    to_weight = _empty_weight_gradient(x, grad, stride)
    shape = _Shape(images, height, width, channels, grad.shape[1], stride, torch.get_num_threads())
    library().call(
        "tdsnn_weight_gradient", ctypes.byref(shape), x.data_ptr(), grad.data_ptr(), to_weight.data_ptr()
    )
    return to_weight


def _empty_weight_gradient(x: Tensor, grad: Tensor, stride: int) -> Tensor:
    size = (grad.shape[1], 3, 3, x.shape[1])
    return x.new_empty(size, dtype=torch.float32).permute(0, 3, 1, 2)


_CONVOLUTION = define(
    "convolution(Tensor x, Tensor weight, int stride) -> Tensor",
    cpu=_convolution,
    fake=_convolution,
    function=_Convolution,
)
"""3x3, padding 1; ``x`` (N, C, H, W) in bf16, ``weight`` and its gradient in fp32."""
_WEIGHT_GRADIENT = define(
    "convolution_weight_gradient(Tensor x, Tensor grad, int stride) -> Tensor",
    cpu=weight_gradient,
    fake=_empty_weight_gradient,
)
