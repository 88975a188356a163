"""Greedy exchange of units between the places of a square, which brings units that respond alike together.

TDANN (Margalit et al. 2024) keeps an exchange of units i and j if it raises Pearson's r between correlation c
and proximity s over the two rows i and j. An exchange only permutes the entries of s in these rows, and in
the whole square, so means and variances stay and r rises exactly if

    sum over k other than i and j of (c_ik - c_jk) (s_jk - s_ik)

is positive. The sum takes one pass over four rows, holds for silent units (rows of zeros in c), and is what
the whole square gains in the sum of c s over its pairs.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from tdsnn.kernels._library import library

TIE = 1e-12
"""Gains up to this are ties, e.g. between two units with equal responses, and are refused.

In fp64 the sum over 500 units is off by some 1e-14, so the order of summation, which differs between the two
paths, decides nothing; in fp32 it would decide about ties.
"""


class Swaps(NamedTuple):
    """Outcome of the exchanges in each of G squares of N units."""

    places: Tensor
    """(G, N) int64, unit k ends where unit places[k] was."""
    accepted: Tensor
    """(G,) int64, exchanges kept."""
    gain: Tensor
    """(G,) float64, by how much the sum of correlation times proximity over the pairs rose."""


@torch.no_grad()
def swap_places(
    correlation_GNN: Tensor, proximity_GNN: Tensor, pairs_GA2: Tensor, *, compiled: bool
) -> Swaps:
    """Try pairs of units one after the other and keep each exchange of places that raises r.

    A square with fewer units than the others is filled up with rows and columns of zeros in the correlation,
    which add exactly nothing.

    Args:
        correlation_GNN: float32, symmetric, of responses; zero in the rows of silent units.
        proximity_GNN: float32, symmetric, between the places where the units lie at first.
        pairs_GA2: int64, A attempts of two units each.
        compiled: whether the compiled operator may run; it is for CPUs.

    Raises:
        ValueError: shapes or types that do not fit together.
        IndexError: a pair with a unit outside the square.
    """
    squares, size, _ = correlation_GNN.shape
    if not (
        correlation_GNN.shape == proximity_GNN.shape == (squares, size, size)
        and pairs_GA2.shape == (squares, pairs_GA2.shape[1], 2)
        and correlation_GNN.dtype == proximity_GNN.dtype == torch.float32
    ):
        raise ValueError(
            f"Squares {tuple(correlation_GNN.shape)} of {correlation_GNN.dtype}, "
            f"{tuple(proximity_GNN.shape)} of {proximity_GNN.dtype} and pairs {tuple(pairs_GA2.shape)}."
        )
    on_cpu = correlation_GNN.device.type == "cpu"
    # On CUDA the look would wait for the device, which checks for itself.
    if on_cpu and pairs_GA2.numel() and not (pairs_GA2.min() >= 0 and pairs_GA2.max() < size):
        raise IndexError(f"A unit of a pair lies outside the square of {size} units.")
    run = _compiled if compiled and on_cpu and library() else _eager
    return run(correlation_GNN, proximity_GNN, pairs_GA2)


def _eager(correlation: Tensor, proximity: Tensor, pairs: Tensor) -> Swaps:
    """All squares at once, attempt by attempt; never waits for a CUDA device."""
    device = correlation.device
    square = torch.arange(len(correlation), device=device)
    places = torch.arange(correlation.shape[1], device=device).repeat(len(correlation), 1)
    accepted, gained = torch.zeros_like(square), torch.zeros_like(square, dtype=torch.float64)
    for pair in pairs.unbind(1):
        i, j = pair.unbind(1)
        at = places.gather(1, pair)
        at_i, at_j = at.unbind(1)
        alike = correlation[square, i].double().sub_(correlation[square, j])
        near = proximity[square, at_j].double().sub_(proximity[square, at_i])
        terms = near.gather(1, places).mul_(alike).scatter_(1, pair, 0.0)
        gain = terms.sum(1)
        better = gain > TIE
        places.scatter_(1, pair, torch.where(better.unsqueeze(1), at.flip(1), at))
        accepted += better
        gained += torch.where(better, gain, 0.0)
    return Swaps(places, accepted, gained)


class _Squares(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "size", "attempts")),
        ("tie", ctypes.c_double),
        ("threads", ctypes.c_int32),
    )


def _compiled(correlation: Tensor, proximity: Tensor, pairs: Tensor) -> Swaps:
    correlation, pairs = correlation.contiguous(), pairs.contiguous()
    moved = proximity.clone(memory_format=torch.contiguous_format)
    squares, size, _ = correlation.shape
    found = Swaps(
        places=pairs.new_empty(squares, size, dtype=torch.int64),
        accepted=pairs.new_empty(squares, dtype=torch.int64),
        gain=pairs.new_empty(squares, dtype=torch.float64),
    )
    threads = max(1, min(torch.get_num_threads(), squares))
    library().call(
        "tdsnn_swaps",
        ctypes.byref(_Squares(squares, size, pairs.shape[1], TIE, threads)),
        *(tensor.data_ptr() for tensor in (correlation, moved, pairs, *found)),
    )
    return found
