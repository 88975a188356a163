"""What every registered attack must keep to, whatever it does inside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toys import Linear, batch, flat, linear_survivors

from tdsnn.attacks._base import ATTACKS, Attack, configure
from tdsnn.attacks._norms import NORMS
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.gates import check_model
from tdsnn.errors import GateError, UsageError

EPS = 0.1


CLASSES = 4
"""As many as the most demanding loss needs."""
QUICK = {"square": {"queries": 50}}


@pytest.fixture(params=ATTACKS.names())
def attack(request: pytest.FixtureRequest) -> Attack:
    if request.param == "torchattacks":
        pytest.importorskip("torchattacks")
    return configure(request.param, **QUICK.get(request.param, {}))


def test_its_registered_name_is_its_own_name(attack: Attack) -> None:
    assert isinstance(attack, ATTACKS.load(attack.name))


def test_it_states_its_budgets_and_its_settings(attack: Attack) -> None:
    assert attack.budgets
    assert {norm for norm in attack.budgets if norm} <= set(NORMS)
    assert None not in attack.budgets or len(attack.budgets) == 1, "either a ball or none"
    for norm in attack.budgets:
        (spec,) = attack_specs([attack.name if norm is None else f"{attack.name}:norm={norm}"])
        assert spec.strengths
        assert spec.norm == norm
    assert attack.read(attack.name, attack.settings) == attack.settings


@pytest.mark.parametrize("eps", [1e-3, EPS, 0.5, 1.0])
@pytest.mark.parametrize(
    ("attack", "norm"),
    [(name, norm) for name in ATTACKS.names() for norm in ATTACKS.load(name).budgets],
    indirect=["attack"],
)
def test_candidates_stay_in_the_ball_and_in_the_pixel_range(
    attack: Attack, norm: str | None, eps: float
) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 12)
    outcome = attack.perturb(model, x, y, eps=eps, norm=norm, indices=range(12))
    assert outcome.x_adv.min() >= 0
    assert outcome.x_adv.max() <= 1
    # Some give back an image that they could not break.
    assert eps < EPS or (outcome.x_adv != x).any(), "the attack does something"
    if norm is not None:
        order = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
        distances = (outcome.x_adv - x).double().flatten(1).norm(p=order, dim=1)
        assert distances.max() <= eps + 2e-6


def test_no_strength_changes_nothing(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 12)
    outcome = attack.perturb(model, x, y, eps=0.0, indices=range(12))
    assert torch.equal(outcome.x_adv, x)
    assert torch.equal(outcome.robust, outcome.clean)
    assert outcome.robust.sum() == 9


def test_wrong_samples_never_enter(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 12)
    outcome = attack.perturb(model, x, y, eps=EPS, indices=range(12))
    assert not outcome.clean[::4].any()
    assert not outcome.robust[::4].any()
    assert torch.equal(outcome.x_adv[::4], x[::4])


def test_a_batch_without_correct_samples_is_left_alone(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 12)
    outcome = attack.perturb(model, x[::4], y[::4], eps=EPS, indices=range(0, 12, 4))
    assert outcome.robust.sum() == 0
    assert torch.equal(outcome.x_adv, x[::4])


def test_a_verdict_is_what_the_model_says_about_the_candidate(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 40)
    outcome = attack.perturb(model, x, y, eps=EPS, indices=range(40))
    assert torch.equal(outcome.robust, outcome.clean & (model(outcome.x_adv).argmax(1) == y))
    if attack.norms():
        # No attack can break what cannot be broken.
        assert (outcome.robust | ~linear_survivors(model, x, y, EPS)).all()


@pytest.mark.parametrize("build", [Linear, flat])
def test_one_seed_gives_one_result(attack: Attack, build: Callable[..., Linear]) -> None:
    model = build(classes=CLASSES)
    x, y = batch(model, 12)
    first, again = (attack.perturb(model, x, y, eps=1e-3, indices=range(12), seed=5).x_adv for _ in range(2))
    assert torch.equal(first, again)


def test_draws_do_not_depend_on_order_or_size_of_the_batch(attack: Attack) -> None:
    # Without a gradient, what an attack returns is its draws.
    model = flat(CLASSES)
    x, y = batch(model, 12)
    whole = attack.perturb(model, x, y, eps=1e-3, indices=range(12)).x_adv
    order = torch.tensor([5, 0, 11, 3, 7, 1, 2, 10, 9, 4, 6, 8])
    permuted = attack.perturb(model, x[order], y[order], eps=1e-3, indices=order.tolist()).x_adv
    assert torch.equal(permuted, whole[order])
    parts = [
        attack.perturb(model, x[i : i + 5], y[i : i + 5], eps=1e-3, indices=range(i, min(i + 5, 12))).x_adv
        for i in range(0, 12, 5)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_what_cannot_be_lowered_is_survived(attack: Attack) -> None:
    """The masked control: without a gradient, or anything to gain, nothing is broken and nothing is NaN."""
    model = Linear(classes=CLASSES, twist=lambda _x, logits: 0 * logits + torch.tensor([1.0, 0, -1, -2]))
    x, y = batch(model, 12)
    labels = y.clone()
    outcome = attack.perturb(model, x, y, eps=EPS, indices=range(12))
    assert outcome.x_adv.isfinite().all()
    assert torch.equal(outcome.robust, outcome.clean)
    assert torch.equal(y, labels)


def test_the_global_random_state_is_not_touched(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 4)
    before = torch.random.get_rng_state()
    attack.perturb(model, x, y, eps=EPS, indices=range(4))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_model_is_used_in_eval_mode_and_left_as_found(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 12)
    expected = attack.perturb(model, x, y, eps=EPS, indices=range(12)).x_adv
    model.train()
    model.dropout.eval()
    extra = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    model.register_parameter("frozen", extra)
    assert torch.equal(attack.perturb(model, x, y, eps=EPS, indices=range(12)).x_adv, expected)
    assert model.training
    assert not model.dropout.training
    assert model.weight.requires_grad
    assert not extra.requires_grad
    assert model.weight.grad is None


def test_a_model_that_gives_nan_gets_no_verdict(attack: Attack) -> None:
    x, y = batch(Linear(classes=CLASSES), 8)
    broken = Linear(
        classes=CLASSES, twist=lambda x, logits: torch.where(x.flatten(1)[:, :1] > 0.5, logits, torch.nan)
    )
    with pytest.raises(GateError, match="not finite"):
        attack.perturb(broken, x, y, eps=EPS, indices=range(8))


def test_a_model_that_remembers_is_refused_before_any_attack() -> None:
    carried: list[Tensor] = []

    def remember(_x: Tensor, logits: Tensor) -> Tensor:
        carried.append(logits.detach().mean())
        return logits + 0.1 * sum(carried)

    x, _ = batch(Linear(classes=CLASSES), 8)
    with pytest.raises(GateError, match="same batch twice"):
        check_model(Linear(classes=CLASSES, twist=remember), x, num_classes=CLASSES)


@pytest.mark.parametrize("eps", [-1 / 255, 1.5, float("nan")])
def test_a_strength_outside_its_range_is_refused(attack: Attack, eps: float) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 4)
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        attack.perturb(model, x, y, eps=eps, indices=range(4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x * 255, y), r"\[0, 1\]"),
        (lambda x, y: (x.where(x < 0.6, torch.nan), y), r"\[0, 1\]"),
        (lambda x, y: (x[0], y), "N, C, H, W"),
        (lambda x, y: ((x * 255).to(torch.uint8), y), "float"),
        (lambda x, y: (x, y[:2]), "labels"),
        (lambda x, y: (x, y.float()), "int64"),
        (lambda x, y: (x[:0], y[:0]), "4 indices"),
    ],
)
def test_images_and_labels_of_the_wrong_form_are_refused(attack: Attack, spoil, message: str) -> None:
    model = Linear(classes=CLASSES)
    x, y = spoil(*batch(model, 4))
    with pytest.raises(UsageError, match=message):
        attack.perturb(model, x, y, eps=EPS, indices=range(4))


def test_a_norm_that_it_does_not_have_is_refused(attack: Attack) -> None:
    model = Linear(classes=CLASSES)
    x, y = batch(model, 4)
    with pytest.raises(UsageError, match="no norm 'l7'"):
        attack.perturb(model, x, y, eps=EPS, indices=range(4), norm="l7")
