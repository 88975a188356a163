"""Signs of gradient masking, on made-up verdicts and on a model whose gradient is really masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray
from toys import Linear, flat, split

from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.masking import Sign, caveat, signs
from tdsnn.benchmark.masking.cells import from_cells
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.result_folder import ResultFolder
from tdsnn.results import Cell

N = 1000
PGD = {"steps": 10}


def cell(attack: str, eps_255: float, settings: Mapping[str, Any], *, norm: str | None = "linf") -> Cell:
    return Cell(
        key=f"{attack} {eps_255}",
        model="toy",
        attack=attack,
        eps_255=eps_255,
        norm=norm,
        settings=settings,
        accuracy=None,
        clean_correct=None,
        survivors=None,
    )


def first(count: int) -> NDArray[np.bool_]:
    """The first ``count`` of N images survive."""
    return np.arange(N) < count


def found(*measured: tuple[Cell, NDArray[np.bool_]]) -> list[Sign]:
    verdicts = {cell.key: right for cell, right in measured}
    return signs(from_cells([cell for cell, _ in measured], verdicts, clean=first(900), chance=0.1))


def test_a_plausible_sweep_raises_no_alarm() -> None:
    sweep = [(cell("pgd", eps, PGD), first(right)) for eps, right in ((1, 700), (4, 100), (8, 10), (128, 0))]
    sweep += [(cell("fgsm", eps, {}), first(right)) for eps, right in ((1, 750), (4, 300), (8, 200))]
    assert found(*sweep) == []


@pytest.mark.parametrize(
    ("measured", "check", "words"),
    [
        ([(cell("pgd", 8, PGD), first(40))], "normal training", "4.0 % of the images survive pgd at 8/255"),
        (
            [
                (cell("pgd", 8, PGD), first(90)),
                (cell("worst case", 8, {"attacks": ["fgsm", "pgd"]}), first(40)),
            ],
            "normal training",
            "4.0 % of the images survive all attacks at 8/255",
        ),
        ([(cell("pgd", 16, PGD), first(40))], "normal training", "pgd at 16/255"),
        (
            [(cell("fgsm", 1, {}), first(480)), (cell("pgd", 1, PGD), first(500))],
            "single step",
            "2.0 % of the images fall to fgsm but survive pgd at 1/255",
        ),
        (
            [(cell("pgd", 2, PGD), first(508)), (cell("pgd", 1, PGD), first(500))],
            "stronger attack",
            "0.8 % more of the images survive pgd at 2/255 than 1/255",
        ),
        ([(cell("pgd", 128, PGD), first(130))], "flat grey", "13.0 % of the images survive pgd at 128/255"),
    ],
)
def test_each_sign_names_what_was_measured(
    measured: list[tuple[Cell, NDArray[np.bool_]]], check: str, words: str
) -> None:
    messages = {sign.check: sign.message for sign in found(*measured)}
    assert words in messages[check]


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param([(cell("fgsm", 8, {}), first(200))], id="one step may leave survivors"),
        pytest.param([(cell("pgd", 4, PGD), first(300))], id="a weak attack may leave survivors"),
        pytest.param(
            [
                (cell("pgd", 8, PGD), first(9)),
                (cell("gaussian", 8, {}, norm=None), first(100)),
                (cell("gaussian", 16, {}, norm=None), first(900)),
            ],
            id="noise is no attack in a ball",
        ),
        pytest.param([(cell("pgd", 8, PGD), first(13))], id="1.3 % of 1,000 may be 1 %"),
        pytest.param(
            [(cell("fgsm", 1, {}), first(495)), (cell("pgd", 1, PGD), first(500))], id="half a percent"
        ),
        pytest.param(
            [
                (cell("pgd", 8, PGD), first(40)),
                (cell("worst case", 8, {"attacks": ["fgsm", "pgd"]}), first(5)),
            ],
            id="the union of the attacks decides",
        ),
    ],
)
def test_no_alarm_for_what_is_normal(measured: list[tuple[Cell, NDArray[np.bool_]]]) -> None:
    assert found(*measured) == []


def test_one_image_more_is_no_alarm_however_few_there_are() -> None:
    weak, strong = cell("pgd", 1, PGD), cell("pgd", 2, PGD)
    verdicts = {weak.key: np.array([True, False, False]), strong.key: np.array([True, True, False])}
    assert signs(from_cells([weak, strong], verdicts, clean=first(900), chance=0.1)) == []


def test_a_refused_cell_is_left_out() -> None:
    assert from_cells([cell("pgd", 8, PGD)], {}, clean=first(900), chance=0.1) == []


@pytest.mark.parametrize(("right", "alarm"), [(100, False), (115, False), (130, True)])
def test_a_model_at_chance_cannot_be_masked(right: int, alarm: bool) -> None:
    """One that always answers the same keeps that answer under any attack."""
    strong = cell("pgd", 128, PGD)
    found = signs(from_cells([strong], {strong.key: first(right)}, clean=first(right), chance=0.1))
    assert bool(found) == alarm


def test_sweeps_of_other_settings_are_not_one_sweep() -> None:
    weak, strong = cell("pgd", 1, PGD), structs.replace(cell("pgd", 2, {"steps": 2}), variant="steps=2")
    assert found((weak, first(300)), (strong, first(500))) == []


@pytest.mark.parametrize(
    ("attacks", "gradient", "words"),
    [
        (
            ["pgd"],
            "the training surrogate",
            "under pgd is only an upper bound on robustness: one gradient attack through the",
        ),
        (["pgd"], "the exact gradient", "through the exact gradient"),
        (["pgd:source=sresnet18"], "the training surrogate", "attack through the network sresnet18, and"),
        (
            ["pgd", "apgd:source=sresnet18"],
            "the training surrogate",
            "through the training surrogate and the network sresnet18, and",
        ),
        (["pgd", "fgsm", "gaussian"], "the training surrogate", "under pgd and fgsm is"),
    ],
)
def test_the_caveat_names_the_attacks_in_a_ball(attacks: list[str], gradient: str, words: str) -> None:
    assert words in str(caveat(attack_specs(attacks), gradient))


def test_noise_alone_needs_no_caveat() -> None:
    assert caveat(attack_specs(["gaussian"]), "atan") is None


@pytest.mark.parametrize(("model", "expected"), [(Linear(), []), (flat(), ["normal training"])])
def test_a_model_without_a_gradient_is_flagged_and_an_open_one_is_not(
    model: Linear, expected: list[str], tmp_path: Path
) -> None:
    images = split(Linear(), 30)
    plan = Plan(dataset="toy", split=images, n=30, attacks=attack_specs(["pgd"], eps=[60]))
    entry = ModelEntry(name="toy", model=model, checkpoint_sha256="0" * 64, source="path")
    (record,) = run_bench(plan, [entry], ResultFolder(tmp_path)).models
    assert [sign["check"] for sign in record["masking_signs"]] == expected
    assert "only an upper bound" in record["caveat"]
    (clean,) = run_bench(replace(plan, attacks=()), [entry], ResultFolder(tmp_path)).models
    assert (clean["caveat"], clean["masking_signs"]) == (None, [])
