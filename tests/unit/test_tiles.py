"""How kernels count neurons, in Triton's interpreter, where ``test_triton.py`` runs this."""

from __future__ import annotations

import os

import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from tdsnn.kernels.gpu._lif_kernels import tile_of  # noqa: E402

pytestmark = pytest.mark.skipif(not os.environ.get("TRITON_INTERPRET"), reason="is run by test_triton.py")


@triton.jit
def offsets(out, there, tile, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    at, _, inside = tile_of(tile, rows, channels, ROWS, CHANNELS)
    place = tl.arange(0, ROWS)[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    tl.store(out + place, at)
    tl.store(there + place, inside.to(tl.int32))


def test_offsets_of_more_rows_than_32_bits_count() -> None:
    out, there = torch.empty(8, 4, dtype=torch.int64), torch.empty(8, 4, dtype=torch.int32)
    first = 2**32 + 64
    offsets[(1,)](out, there, first // 8, first + 6, 3, ROWS=8, CHANNELS=4)
    assert torch.equal(out, (first + torch.arange(8))[:, None] * 3 + torch.arange(4))
    assert there.tolist() == 6 * [[1, 1, 1, 0]] + 2 * [4 * [0]]
