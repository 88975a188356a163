"""Attacks as they are typed: names, settings, norms and strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from tdsnn.attacks._base import Attack, configure
from tdsnn.attacks._spec import attack_specs, parse_strength
from tdsnn.attacks.pgd import PGD
from tdsnn.errors import UsageError


def test_without_strengths_each_attack_has_its_own() -> None:
    assert [spec.strengths for spec in attack_specs(["pgd", "gaussian", "pgd:norm=l2"])] == [
        (0.5, 1, 2, 4, 8),
        (8, 16, 32, 64),
        (16, 32, 64, 128, 255),
    ]


def test_settings_norm_and_strengths_are_read_in_their_types() -> None:
    text = "PGD:steps=100,restarts=5,norm=L2,random_start=True,step_fraction=1,eps=128/255,eps=0"
    (spec,) = attack_specs([text])
    assert spec.attack == PGD(steps=100, restarts=5, step_fraction=1.0)
    assert type(spec.settings["step_fraction"]) is float
    assert (spec.name, spec.norm, spec.strengths) == ("pgd", "l2", (0, 128))
    assert spec.eps(128) == 128 / 255
    assert spec.variant == "norm=l2,steps=100,step_fraction=1.0,restarts=5"


def test_what_is_typed_for_all_attacks_goes_where_nothing_else_is_stated() -> None:
    specs = attack_specs(["pgd", "pgd:steps=20,eps=2", "fgsm"], eps=["8/255", "1"], steps=3)
    assert [(spec.variant, spec.strengths) for spec in specs] == [
        ("steps=3", (1, 8)),
        ("steps=20", (2,)),
        ("", (1, 8)),
    ]
    with pytest.raises(UsageError, match="takes steps"):
        attack_specs(["fgsm"], steps=3)


def test_one_attack_with_the_same_settings_is_one_with_all_strengths() -> None:
    specs = attack_specs(["pgd:eps=8", "fgsm:eps=1", "pgd:steps=10,eps=4,eps=8/255"])
    assert [(spec.name, spec.strengths) for spec in specs] == [("pgd", (4, 8)), ("fgsm", (1,))]


def test_a_variant_is_what_one_types_to_get_it() -> None:
    for text in ("pgd", "pgd:norm=l2", "pgd:random_start=false", "pgd:steps=7,step_fraction=0.5"):
        (spec,) = attack_specs([text])
        assert f"{spec.name}:{spec.variant}".removesuffix(":") == text


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("pdg", "no attack called 'pdg'. Did you mean pgd", ""),
        ("pgd:step=3", "pgd has an unknown key 'step'; did you mean 'steps'?", "steps, step_fraction"),
        ("pgd:steps=3.5", "pgd needs a whole number from 1 to 100000 for 'steps', not '3.5'", "restarts"),
        ("pgd:steps=0", "pgd needs a whole number from 1 to 100000 for 'steps', not '0'", ""),
        ("pgd:step_fraction=0", "pgd needs a number above 0 and at most 10 for 'step_fraction', not '0'", ""),
        ("pgd:step_fraction=nan", "pgd needs a number above 0 and at most 10 for 'step_fraction'", ""),
        ("pgd:random_start=maybe", "pgd needs true or false for 'random_start', not 'maybe'", ""),
        ("pgd:restarts=3,random_start=false", "3 restarts of pgd would all be the same", "random_start"),
        ("pgd:norm=l7", "pgd has no norm 'l7'; allowed: linf, l2", ""),
        ("gaussian:norm=l2", "no norm 'l2'; allowed: none", ""),
        ("gaussian:steps=3", "gaussian has an unknown key 'steps'", "Settings of gaussian: draw;"),
        ("pgd:steps", "'steps' in 'pgd:steps' is not of the form key=value", "pgd:steps=100"),
        ("pgd:", "is not of the form key=value", ""),
        ("pgd:steps=1,steps=2", "states steps twice", "--attack once"),
        ("pgd:eps=x", "'x' is no strength", "8/255"),
    ],
)
def test_what_cannot_be_is_refused_with_a_suggestion(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        attack_specs([text])
    assert message in caught.value.message
    assert caught.value.hint
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "strength"),
    [("8", 8.0), ("8/255", 8.0), ("0.031/255", 0.031), ("1/2", 127.5), ("0", 0.0), ("0.1", 0.1), (0.5, 0.5)],
)
def test_strengths_are_in_units_of_1_255(text: str | float, strength: float) -> None:
    assert parse_strength(text, norm="linf") == strength


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", r"0\.\.255"),
        ("256", r"0\.\.255"),
        ("256/255", r"0\.\.255"),
        ("nan", r"0\.\.255"),
        ("8/0", "no strength"),
        ("8/-255", "no strength"),
        ("8/2/55", "no strength"),
        ("eight", "no strength"),
        ("", "no strength"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_strength(text, norm="linf")


def test_a_number_that_may_be_a_fraction_of_the_pixel_range_names_both_readings() -> None:
    with pytest.raises(UsageError, match=r"0\.031 may mean 0\.031/255 or.*7\.91/255") as caught:
        parse_strength("0.031", norm="linf")
    assert caught.value.hint == "Write 0.031/255 or 7.91."


def test_l2_radii_may_be_longer_than_the_pixel_range_and_l0_counts_values() -> None:
    assert parse_strength("600", norm="l2") == 600
    assert parse_strength("10", norm="l0") == 10
    for text in ("inf", "-1"):
        with pytest.raises(UsageError, match="0 or above"):
            parse_strength(text, norm="l2")


@dataclass(frozen=True, kw_only=True)
class _Choosing(Attack):
    loss: Literal["ce", "dlr"] = "ce"

    def run(self, model, x, y, *, eps, norm, task, generator):
        return x


def test_a_setting_may_be_one_of_some_words() -> None:
    assert _Choosing(loss="dlr").settings == {"loss": "dlr"}
    with pytest.raises(UsageError, match="_choosing needs 'ce' or 'dlr' for 'loss', not 'hinge'"):
        _Choosing(loss="hinge")


def test_settings_from_python_are_checked_as_those_from_the_command_line() -> None:
    for settings in ({"steps": 0}, {"steps": True}, {"steps": "3"}, {"step_fraction": float("nan")}):
        with pytest.raises(UsageError, match="pgd needs"):
            configure("pgd", **settings)
    with pytest.raises(UsageError, match="needs a whole number"):
        PGD(steps=2.5)
