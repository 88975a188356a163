"""Neighbourhoods for one batch after the other: the same whether they were drawn ahead or not, and where."""

from __future__ import annotations

import pytest
import torch
from second_device import second_device

from tdsnn.schema import Topography
from tdsnn.topography.clusters import Clusters, sample_clusters
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses import ClusterDraws
from tdsnn.topography.sheets import CorticalSheet, build_sheets

CPU = torch.device("cpu")


def sheets() -> dict[str, CorticalSheet]:
    return build_sheets(
        {"a": (4, 8, 8), "b": (8, 4, 4)}, [SheetSpec("a", 10.0), SheetSpec("b", 20.0)], seed=0
    )


def draws() -> ClusterDraws:
    return ClusterDraws(sheets(), Topography(clusters=3, cluster_units=12))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: dict[str, Clusters], other: dict[str, Clusters]) -> bool:
    return all(
        torch.equal(one[layer].units, other[layer].units)
        and torch.equal(one[layer].proximity, other[layer].proximity)
        for layer in one
    )


def test_they_are_those_of_the_sheets_one_after_the_other() -> None:
    generator = seeded(3)
    expected = {
        layer: sample_clusters(sheet, count=3, units=12, generator=generator)
        for layer, sheet in sheets().items()
    }
    assert same(draws().draw(seeded(3), device=CPU), expected)


@pytest.mark.parametrize("begun", [3, 4])
def test_what_was_drawn_ahead_is_what_would_be_drawn_now(begun: int) -> None:
    now, later = seeded(3), seeded(3)
    expected, drawn = draws().draw(now, device=CPU), draws()
    drawn.ahead(seeded(begun))  # of 4 nobody asks
    assert same(drawn.draw(later, device=CPU), expected)
    assert torch.equal(now.get_state(), later.get_state())
    assert not same(drawn.draw(later, device=CPU), expected)


def test_a_generator_that_has_gone_on_is_another_one() -> None:
    drawn, gone_on, other = draws(), seeded(3), seeded(3)
    drawn.ahead(seeded(3))
    for one in (gone_on, other):
        torch.rand(1, generator=one)
    assert same(drawn.draw(gone_on, device=CPU), draws().draw(other, device=CPU))


def test_to_a_gpu_goes_one_copy_that_nobody_waits_for() -> None:
    expected = draws().draw(seeded(3), device=CPU)
    with second_device() as ledger:
        drawn, cuda = draws(), torch.device("cuda", 0)
        drawn.draw(seeded(2), device=cuda)
        drawn.ahead(seeded(3))
        found = drawn.draw(seeded(3), device=cuda)
        assert not ledger.waits
        for layer, clusters in found.items():
            assert clusters.units.device == clusters.proximity.device == cuda
            assert torch.equal(clusters.units.cpu(), expected[layer].units)
            torch.testing.assert_close(clusters.proximity.cpu(), expected[layer].proximity)
