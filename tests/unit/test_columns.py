"""Chosen columns of a matrix: values, gradients, and which path runs."""

from __future__ import annotations

import pytest
import torch
from networks import needs_compiler

from tdsnn.kernels.columns import gather_columns

PATHS = [
    pytest.param(False, id="eager"),
    pytest.param(True, id="compiled", marks=needs_compiler),
]


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("compiled", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 120, 7, 30), (51, 700, 10, 20), (1, 1, 1, 1)])
def test_columns_and_the_sum_of_their_gradients(
    size: tuple[int, int, int, int], dtype: torch.dtype, compiled: bool, threads: int
) -> None:
    rows, length, groups, count = size
    draws = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows, length, generator=draws).to(dtype).requires_grad_()
    columns = torch.randint(length, (groups, count), generator=draws)
    weight = torch.randn(groups, rows, count, generator=draws)
    exact = matrix.detach().float().requires_grad_()
    literal = exact[:, columns].transpose(0, 1)
    (expected,) = torch.autograd.grad((literal * weight).sum(), exact)
    got = gather_columns(matrix, columns, compiled=compiled)
    (ours,) = torch.autograd.grad((got * weight).sum(), matrix)
    torch.testing.assert_close(got, literal, rtol=0.0, atol=0.0)
    torch.testing.assert_close(ours, expected.to(dtype))


@pytest.mark.parametrize("compiled", PATHS)
@pytest.mark.parametrize("column", [-1, 5])
def test_a_column_outside_the_matrix_is_refused(column: int, compiled: bool) -> None:
    with pytest.raises(IndexError):
        gather_columns(torch.zeros(2, 5), torch.tensor([[0, column]]), compiled=compiled)
