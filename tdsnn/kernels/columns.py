"""Chosen columns of a matrix, in groups: the activity of the units of several neighbourhoods."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tdsnn.kernels._library import STORAGE, library
from tdsnn.kernels._operators import below_autograd, define, is_transformed


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
    fits = on_cpu and matrix_RU.dtype in STORAGE and not is_transformed()
    gather = _GATHER if compiled and fits and library() else _GatherEager.apply
    chosen: Tensor = gather(matrix_RU, columns_MN)
    return chosen


class _GatherEager(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix_RU: Tensor, columns_MN: Tensor) -> Tensor:
        chosen = matrix_RU.index_select(1, columns_MN.flatten()).float()
        return chosen.view(-1, *columns_MN.shape).transpose(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _save_context(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (columns_MN,) = ctx.saved_tensors
        return _scatter_eager(grad, columns_MN, ctx.length, ctx.dtype), None


class _GatherCompiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix_RU: Tensor, columns_MN: Tensor) -> Tensor:
        _save_context(ctx, matrix_RU, columns_MN)
        chosen: Tensor = below_autograd(_GATHER, matrix_RU, columns_MN)
        return chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (columns_MN,) = ctx.saved_tensors
        # What can be differentiated itself, if second derivatives may be asked for.
        scatter = _scatter_eager if torch.is_grad_enabled() else _SCATTER
        return scatter(grad, columns_MN, ctx.length, ctx.dtype), None


def _save_context(ctx: Any, matrix_RU: Tensor, columns_MN: Tensor) -> None:
    ctx.save_for_backward(columns_MN)
    ctx.length, ctx.dtype = matrix_RU.shape[1], matrix_RU.dtype


def _scatter_eager(grad_MRN: Tensor, columns_MN: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """The matrix (R, U) that is zero but for the sums of the gradients of each chosen column."""
    if grad_MRN.device.type == "cuda":
        # How many columns are distinct would be known only after a wait.
        sums = grad_MRN.new_zeros(grad_MRN.shape[1], length)
        return sums.index_add_(1, columns_MN.flatten(), grad_MRN.transpose(0, 1).flatten(1)).to(dtype)
    distinct, index_in_distinct = torch.unique(columns_MN.flatten(), return_inverse=True)
    # A small matrix product adds what goes to the same column; scatter_add takes several times as long.
    one_hot = F.one_hot(index_in_distinct, len(distinct)).to(grad_MRN.dtype)
    sums = grad_MRN.transpose(0, 1).flatten(1) @ one_hot
    zeros = grad_MRN.new_zeros(grad_MRN.shape[1], length, dtype=dtype)
    return zeros.index_copy(1, distinct, sums.to(dtype))


class _Choice(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "length", "groups", "size")),
        *((name, ctypes.c_int32) for name in ("half", "threads")),
    )


def _choice(matrix: Tensor, columns: Tensor) -> Any:
    half, threads = STORAGE[matrix.dtype], torch.get_num_threads()
    return ctypes.byref(_Choice(*matrix.shape, *columns.shape, half, threads))


def _gather(matrix: Tensor, columns: Tensor) -> Tensor:
    matrix, columns = matrix.contiguous(), columns.contiguous()
    chosen = _empty_chosen(matrix, columns)
    library().call(
        "tdsnn_gather_columns",
        _choice(matrix, columns),
        matrix.data_ptr(),
        columns.data_ptr(),
        chosen.data_ptr(),
    )
    return chosen


def _empty_chosen(matrix: Tensor, columns: Tensor) -> Tensor:
    return matrix.new_empty((columns.shape[0], matrix.shape[0], columns.shape[1]), dtype=torch.float32)


def _scatter(grad: Tensor, columns: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    grad, columns = grad.contiguous(), columns.contiguous()
    distinct, index_in_distinct = torch.unique(columns, return_inverse=True)
    matrix = _empty_matrix(grad, columns, length, dtype)
    library().call(
        "tdsnn_scatter_columns",
        _choice(matrix, columns),
        grad.data_ptr(),
        distinct.data_ptr(),
        len(distinct),
        index_in_distinct.data_ptr(),
        matrix.data_ptr(),
    )
    return matrix


def _empty_matrix(grad: Tensor, columns: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    return grad.new_empty((grad.shape[1], length), dtype=dtype)


_GATHER = define(
    "gather_columns(Tensor matrix, Tensor columns) -> Tensor",
    cpu=_gather,
    fake=_empty_chosen,
    function=_GatherCompiled,
)
_SCATTER = define(
    "scatter_columns(Tensor grad, Tensor columns, SymInt length, ScalarType dtype) -> Tensor",
    cpu=_scatter,
    fake=_empty_matrix,
)
