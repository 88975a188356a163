"""The radius is enforced in every norm by one table, whatever an attack returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from toys import Linear, batch

from tdsnn.attacks._base import Attack, check_eps
from tdsnn.attacks._norms import NORMS
from tdsnn.errors import GateError, UsageError


@dataclass(frozen=True, kw_only=True)
class _Careless(Attack):
    """Shifts some values, to see that the base class does not believe that it kept to its ball."""

    budgets: ClassVar = dict.fromkeys(("linf", "l2", "l1", "l0"), (8.0,))
    shift: float = 0.0
    values: int = 16

    def run(self, model, x, y, *, eps, norm, task, generator) -> Tensor:
        moved = x.clone()
        moved.flatten(1)[:, : self.values] += self.shift
        return moved


def _perturb(attack: Attack, *, eps: float, norm: str | None) -> Tensor:
    x, y = batch(Linear(), 4)
    return attack.perturb(Linear(), x, y, eps=eps, norm=norm, indices=range(4)).x_adv


@pytest.mark.parametrize(
    ("norm", "length"), [("linf", 0.4), ("l2", (0.4**2 + 0.3**2) ** 0.5), ("l1", 0.7), ("l0", 2.0)]
)
def test_lengths_are_those_of_the_definitions(norm: str, length: float) -> None:
    one, other = torch.full((2, 1, 2, 2), 0.5), torch.full((2, 1, 2, 2), 0.5)
    other[1, 0, 0, 0] += 0.4
    other[1, 0, 1, 1] -= 0.3
    assert NORMS[norm].distance(one, other) == pytest.approx(length, abs=1e-7)
    assert NORMS[norm].of_ones(4) == NORMS[norm].length(torch.ones(1, 4)).item()


@pytest.mark.parametrize(
    ("norm", "shift", "values", "eps"),
    [
        ("linf", 0.1, 16, 0.1),
        ("linf", -0.1, 16, 0.1),
        ("l2", 0.05, 16, 0.2),
        ("l2", 0.1, 4, 0.2),
        ("l1", 0.01, 16, 0.16),
        ("l0", 0.2, 3, 3.0),
    ],
)
def test_the_surface_of_a_ball_belongs_to_it_and_what_is_beyond_is_refused(
    norm: str, shift: float, values: int, eps: float
) -> None:
    _perturb(_Careless(shift=shift, values=values), eps=eps, norm=norm)
    with pytest.raises(GateError, match=f"left its {norm} ball") as caught:
        _perturb(_Careless(shift=shift, values=values), eps=0.999 * eps, norm=norm)
    assert caught.value.exit_code == 5


def test_an_l2_attack_far_outside_its_ball_is_refused() -> None:
    with pytest.raises(GateError, match=r"left its l2 ball: distance 1\.2"):
        _perturb(_Careless(shift=0.3), eps=0.002, norm="l2")


@pytest.mark.parametrize(
    ("shift", "eps", "message"),
    [(1e-7, 0.0, "ball"), (0.9, 1.0, "pixel range"), (float("nan"), 0.1, "not finite")],
)
def test_a_candidate_that_breaks_the_rules_is_refused(shift: float, eps: float, message: str) -> None:
    attack = _Careless()
    object.__setattr__(attack, "shift", shift)
    with pytest.raises(GateError, match=message):
        _perturb(attack, eps=eps, norm=None)


@pytest.mark.parametrize(("norm", "most"), [("linf", 1), ("l2", 28), ("l1", 784), ("l0", 784)])
def test_no_radius_reaches_beyond_the_farthest_image(norm: str, most: float) -> None:
    check_eps(most, norm=norm, values=784)
    for eps in (-0.001, 1.001 * most, float("nan")):
        with pytest.raises(UsageError, match=rf"\[0, {most}\]"):
            check_eps(eps, norm=norm, values=784)
