"""Chosen columns of a matrix, in groups: the activity of the units of several neighbourhoods."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tdsnn.kernels._library import STORAGE, library


def gather_columns(matrix_RU: Tensor, columns_MN: Tensor, *, compiled: bool) -> Tensor:
    """The chosen columns (M, R, N) of a matrix (R, U), as float32.

    Args:
        columns_MN: int64 indices on the matrix' device; a column may be chosen more than once.
        compiled: whether the compiled operator may run.

    Raises:
        IndexError: an index outside the matrix.
    """
    on_cpu, length = matrix_RU.device.type == "cpu", matrix_RU.shape[1]
    # On CUDA the look would wait for the device, which checks for itself.
    if on_cpu and columns_MN.numel() and not (columns_MN.min() >= 0 and columns_MN.max() < length):
        raise IndexError(f"A chosen column lies outside the matrix of {length} columns.")
    kind = _Compiled if compiled and on_cpu and matrix_RU.dtype in STORAGE and library() else _Eager
    chosen: Tensor = kind.apply(matrix_RU, columns_MN)
    return chosen


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(columns)
        ctx.shape, ctx.dtype = matrix.shape, matrix.dtype
        chosen = matrix.index_select(1, columns.flatten()).float()
        return chosen.view(-1, *columns.shape).transpose(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (columns,) = ctx.saved_tensors
        different, place = columns.flatten().unique(return_inverse=True)
        # A small matrix product adds what goes to the same column; scatter_add takes several times as long.
        added = grad.transpose(0, 1).flatten(1) @ F.one_hot(place, len(different)).to(grad.dtype)
        to_matrix = grad.new_zeros(ctx.shape, dtype=ctx.dtype)
        to_matrix[:, different] = added.to(ctx.dtype)
        return to_matrix, None


class _Choice(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "length", "groups", "size")),
        *((name, ctypes.c_int32) for name in ("half", "threads")),
    )


def _choice(matrix: Tensor, columns: Tensor) -> Any:
    half, threads = STORAGE[matrix.dtype], torch.get_num_threads()
    return ctypes.byref(_Choice(*matrix.shape, *columns.shape, half, threads))


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, columns: Tensor) -> Tensor:
        matrix, columns = matrix.contiguous(), columns.contiguous()
        ctx.save_for_backward(columns)
        ctx.shape, ctx.dtype = matrix.shape, matrix.dtype
        size = (columns.shape[0], matrix.shape[0], columns.shape[1])
        chosen = matrix.new_empty(size, dtype=torch.float32)
        library().call(
            "tdsnn_gather_columns",
            _choice(matrix, columns),
            matrix.data_ptr(),
            columns.data_ptr(),
            chosen.data_ptr(),
        )
        return chosen

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (columns,) = ctx.saved_tensors
        grad = grad.contiguous()
        different, place = columns.unique(return_inverse=True)
        to_matrix = grad.new_empty(ctx.shape, dtype=ctx.dtype)
        library().call(
            "tdsnn_scatter_columns",
            _choice(to_matrix, columns),
            grad.data_ptr(),
            different.data_ptr(),
            len(different),
            place.data_ptr(),
            to_matrix.data_ptr(),
        )
        return to_matrix, None
