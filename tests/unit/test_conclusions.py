"""What a benchmark says at its end about a model and its twin."""

from __future__ import annotations

import pytest

from tdsnn.result_tables import conclusions
from tdsnn.results import Cell, Comparison, Figure, Result, accuracy_figure
from tdsnn.table import CLEAN, WORST_CASE, short


def _cell(attack: str, eps: float, norm: str | None, *, variant: str = "", unit: str = "sigma") -> Cell:
    return Cell(
        key=f"{attack} {variant} {eps}",
        model="topo.toy",
        attack=attack,
        variant=variant,
        eps_255=eps,
        norm=norm,
        settings={},
        accuracy=accuracy_figure(3, 4),
        clean_correct=3,
        survivors=3,
        unit=unit,
    )


def _comparison(cell: Cell, p: float) -> Comparison:
    difference = Figure(value=-1.0, low=-2.0, high=0.5, unit="percentage points", n=4, method="-")
    return Comparison(
        model="topo.toy",
        twin="twin.toy",
        **cell.place._asdict(),
        difference=difference,
        only_model=0,
        only_twin=1,
        p_mcnemar=p,
        p_holm=p,
    )


def _said(*cells: Cell, p: float = 1.0, twin: str | None = "twin.toy") -> list[str]:
    return conclusions(
        Result(
            settings={"n": 4},
            models=({"name": "topo.toy", "twin": twin},),
            cells=cells,
            comparisons=tuple(_comparison(cell, p) for cell in cells),
            provenance={},
        )
    )


PLAIN = _cell(CLEAN, 0, None)
NOTHING = "No difference between topo and its twin twin is shown"


@pytest.mark.parametrize(
    ("cell", "where"),
    [
        (_cell("pgd", 8, "linf", variant="steps=3"), "under pgd:steps=3 at 8/255"),
        (_cell("pgd", 128, "l2", variant="norm=l2"), "under pgd:norm=l2 at 128/255"),
        (_cell("pixle", 10, "l0"), "under pixle at 10 values"),
        (_cell("gaussian", 16, None), "under gaussian at sigma 16/255"),
        (_cell("salt_and_pepper", 5, None, unit="percent"), "under salt_and_pepper at percent 5"),
        (_cell("corruption", 3, None, variant="kind=fog", unit="severity"), "kind=fog at severity 3"),
    ],
)
def test_a_strength_is_said_in_its_own_unit(cell: Cell, where: str) -> None:
    (sentence,) = _said(PLAIN, cell)
    assert sentence.startswith(NOTHING)
    assert f"{where}: -1.0 [-2.0, +0.5] points." in sentence


def test_without_attacks_the_sentence_is_about_the_images_themselves() -> None:
    assert _said(PLAIN) == [f"{NOTHING} without attack: -1.0 [-2.0, +0.5] points."]


def test_radii_of_different_norms_are_not_held_against_each_other() -> None:
    """255/255 in L2 is a small ball beside 8/255 in Linf: each norm has a sentence of its own."""
    weak, strong = _cell("pgd", 2, "linf"), _cell("pgd", 8, "linf")
    other, noise = _cell("pgd", 255, "l2", variant="norm=l2"), _cell("gaussian", 64, None)
    union = _cell(WORST_CASE, 8, "linf")
    said = _said(PLAIN, noise, weak, strong, other, union, p=0.01)
    assert [sentence.partition(":")[0] for sentence in said] == [
        "twin keeps more than topo under worst case at 8/255",
        "twin keeps more than topo under pgd",
    ]
    assert "under pgd:norm=l2 at 255/255: -1.0" in said[1]


def test_two_networks_without_a_common_recipe_are_no_twins() -> None:
    (sentence,) = _said(PLAIN, twin=None)
    assert sentence.startswith("No difference between topo and twin is shown without attack")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sresnet18.cifar10", "sresnet18"),
        ("hf:lab/mine@v1", "mine@v1"),
        ("examples.snntorch_net:network", "snntorch_net:network"),
        ("my_nets:net", "my_nets:net"),
    ],
)
def test_a_short_name_still_tells_networks_apart(name: str, expected: str) -> None:
    assert short(name) == expected
