"""Outputs of every layout as units, all in one order, and what is no layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.topography.clusters import gather, sample_clusters
from tdsnn.topography.layouts import Layout, SheetSpec, likely_layout
from tdsnn.topography.sheets import CorticalSheet

T, N, C, H, W = 3, 2, 5, 4, 4
MAPS = torch.rand(T, N, C, H, W, generator=torch.Generator().manual_seed(0))
TOKENS = MAPS.flatten(3).transpose(2, 3).contiguous()
"""The same units: token h * W + w is the place (h, w)."""


def spec(layout: Layout, grid: tuple[int, int] | None = None) -> SheetSpec:
    return SheetSpec("layer", 6.0, layout, grid)


@pytest.mark.parametrize(
    ("layout", "output", "maps"),
    [
        ("maps", MAPS, MAPS),
        ("maps", MAPS[0], MAPS[:1]),
        ("maps", MAPS[:, :, :, 0, 0], MAPS[:, :, :, :1, :1]),
        ("maps", MAPS[0, :, :, 0, 0], MAPS[:1, :, :, :1, :1]),
        ("tokens", TOKENS, MAPS),
        ("tokens", TOKENS[0], MAPS[:1]),
    ],
    ids=["TNCHW", "NCHW", "TNC", "NC", "TNLC", "NLC"],
)
def test_every_form_becomes_units_without_a_copy(layout: Layout, output: Tensor, maps: Tensor) -> None:
    found = spec(layout).as_maps(output)
    assert torch.equal(found, maps)
    assert found.data_ptr() == output.data_ptr()
    assert torch.equal(spec(layout).units(output), maps.flatten(2))


def test_units_count_channels_then_rows_then_columns() -> None:
    for layout, output in (("maps", MAPS), ("tokens", TOKENS)):
        units = spec(layout).units(output)
        assert torch.equal(units[..., (2 * H + 3) * W + 1], MAPS[:, :, 2, 3, 1])


def test_a_grid_need_not_be_square() -> None:
    assert torch.equal(spec("tokens", (2, 8)).as_maps(TOKENS), MAPS.reshape(T, N, C, 2, 8))


@pytest.mark.parametrize(
    ("layout", "shape", "words"),
    [
        ("maps", (), r"gives \(\): no units in the layout 'maps', which is \(T, N, C, H, W\)"),
        ("maps", (1, 2, 3, 4, 5, 6), "no units"),
        ("tokens", (2, 5), r"no units in the layout 'tokens', which is \(T, N, L, C\) or \(N, L, C\)"),
        ("tokens", (1, 2, 5, 4, 4), "no units"),
        ("tokens", (2, 17, 5), "gives 17 tokens, which do not fill a square grid"),
    ],
)
def test_other_forms_are_refused(layout: Layout, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        spec(layout).as_maps(torch.zeros(shape))
    assert "SheetSpec(" in caught.value.hint


def test_tokens_that_do_not_fill_the_grid_are_refused() -> None:
    with pytest.raises(UsageError, match="gives 16 tokens, which do not fill a grid of 3 x 5"):
        spec("tokens", (3, 5)).as_maps(TOKENS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("layer", 0.0), "needs a side above 0 mm, not 0"),
        (("layer", float("nan")), "above 0 mm"),
        (("layer", 1.0, "token"), "Did you mean tokens"),
        (("layer", 1.0, "maps", (2, 2)), r"'maps' cannot have the grid \(2, 2\)"),
        (("layer", 1.0, "tokens", (0, 4)), r"cannot have the grid \(0, 4\)"),
    ],
)
def test_impossible_specs_are_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SheetSpec(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 2, 5, 4, 4), "maps"),
        ((2, 5, 4, 4), "maps"),
        ((3, 2, 16, 5), "tokens"),
        ((2, 16, 5), "tokens"),
        ((3, 2, 5), "maps"),
        ((2, 5), "maps"),
    ],
)
def test_the_axis_of_the_samples_tells_the_layout(shape: tuple[int, ...], layout: Layout) -> None:
    assert likely_layout(torch.zeros(shape), samples=2) == layout


def made(layout: Layout) -> CorticalSheet:
    return CorticalSheet.retinotopic(spec(layout), (C, H, W), first_height=H, seed=0)


def test_tokens_lie_where_maps_lie() -> None:
    """Their sheet has the positions of maps on the same grid, and their neighbourhoods the same activity."""
    maps, tokens = made("maps"), made("tokens")
    assert torch.equal(tokens.positions, maps.positions)
    found = []
    for sheet, output in ((maps, MAPS), (tokens, TOKENS)):
        clusters = sample_clusters(sheet, count=3, units=7, generator=torch.Generator().manual_seed(1))
        found.append(gather(output, clusters))
    assert torch.equal(*found)


def test_a_sheet_keeps_its_layout() -> None:
    sheet = made("tokens")
    again = CorticalSheet.from_metadata("layer", sheet.metadata(), sheet.positions)
    assert again.spec == sheet.spec == spec("tokens", (H, W))
    assert "layout" not in made("maps").metadata(), "saved sheets of before keep their bytes"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (TOKENS[:, :, :9], "9 tokens, which do not fill a grid of 4 x 4"),
        (TOKENS[..., :3], r"is for maps \(5, 4, 4\), but the layer gives \(3, 4, 4\)"),
        (MAPS, "no units in the layout 'tokens'"),
    ],
)
def test_an_output_that_does_not_fit_the_sheet_is_refused(output: Tensor, words: str) -> None:
    clusters = sample_clusters(made("tokens"), count=1, units=7, generator=torch.Generator())
    with pytest.raises(UsageError, match=words):
        gather(output, clusters)
