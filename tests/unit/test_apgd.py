"""Auto-PGD beside the one of torchattacks, step by step and by robust accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Linear, batch

from tdsnn.attacks._auto_pgd import checkpoints, climb
from tdsnn.attacks._base import configure
from tdsnn.attacks._losses import dlr, margin, targeted_dlr
from tdsnn.attacks._objective import Objective
from tdsnn.errors import GateError
from tdsnn.tasks.classification import CLASSIFICATION

torchattacks = pytest.importorskip("torchattacks")
NORMS = {"linf": "Linf", "l2": "L2"}
RADII = {"linf": 0.03, "l2": 0.25}


def _smooth(n: int, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network without kinks, and images that it gets right."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 5)
        )
        x = torch.rand(n, 1, 8, 8)
    model, x = model.eval().to(dtype).requires_grad_(False), x.to(dtype)
    model[-1].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


def test_checkpoints_are_those_of_a_hundred_steps() -> None:
    assert [step for step, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [step for step, _ in checkpoints(3)] == [1, 2, 3]


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_step_is_that_of_the_reference(norm: str, loss: str) -> None:
    model, x, y = _smooth(60, torch.float64)
    # So small that nobody falls: all steps and checkpoints of both can be compared.
    eps = RADII[norm] / 100
    safe = dlr(model(x), y) < -0.1
    x, y = x[safe], y[safe]
    reference = torchattacks.APGD(model, norm=NORMS[norm], eps=eps, steps=50, loss=loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = 2 * torch.rand(x.shape) - 1 if norm == "linf" else torch.randn(x.shape)
        size = noise.abs().flatten(1).amax(1) if norm == "linf" else noise.flatten(1).norm(dim=1)
        start = (x + eps * noise / size.view(-1, 1, 1, 1)).clamp(0, 1)
        torch.manual_seed(0)
        best, right, highest, _ = reference.attack_single_run(x, y)
    assert right.all()
    objective = Objective(model, x, y, task=CLASSIFICATION, loss=dlr if loss == "dlr" else None)
    found = climb(objective, start, eps=eps, norm=norm, steps=50, share=0.75)
    losses = objective.losses(model(found))
    assert len(x) > 30
    assert ((losses - highest).abs() < 1e-9).float().mean() > 0.95
    assert ((found - best).abs().flatten(1).amax(1) < 1e-6).float().mean() > 0.95
    assert (losses > objective.losses(model(start))).all()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_robust_accuracy_is_that_of_the_reference(norm: str, loss: str) -> None:
    model, x, y = _smooth(400)
    eps = RADII[norm]
    ours = configure("apgd", loss=loss).perturb(model, x, y, eps=eps, norm=norm, indices=range(400)).robust
    with torch.random.fork_rng(devices=[]):
        x_adv = torchattacks.APGD(model, norm=NORMS[norm], eps=eps, steps=100, loss=loss)(x, y)
    theirs = model(x_adv).argmax(1) == y
    assert 0.1 < theirs.float().mean() < 0.9
    assert 100 * float(ours.float().mean()) == pytest.approx(100 * float(theirs.float().mean()), abs=1)


def test_targets_give_the_robust_accuracy_of_the_reference() -> None:
    model, x, y = _smooth(200)
    ours = configure("apgdt", steps=20).perturb(model, x, y, eps=0.03, indices=range(200)).robust
    with torch.random.fork_rng(devices=[]):
        x_adv = torchattacks.APGDT(model, eps=0.03, steps=20, n_classes=5)(x, y)
    theirs = model(x_adv).argmax(1) == y
    assert 0.1 < theirs.float().mean() < 0.9
    assert 100 * float(ours.float().mean()) == pytest.approx(100 * float(theirs.float().mean()), abs=1)


def test_more_targets_than_classes_are_all_others() -> None:
    model, x, y = _smooth(60)
    few, many = (
        configure("apgdt", steps=5, targets=targets).perturb(model, x, y, eps=0.03, indices=range(60)).x_adv
        for targets in (4, 9)
    )
    assert torch.equal(few, many)
    one = configure("apgdt", steps=5, targets=1).perturb(model, x, y, eps=0.03, indices=range(60))
    assert not torch.equal(one.x_adv, few)


def test_losses_are_those_of_the_reference_and_do_not_mind_scale() -> None:
    logits, y = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 6
    model = nn.Linear(1, 1)
    torch.testing.assert_close(dlr(logits, y), torchattacks.APGD(model).dlr_loss(logits, y))
    targets = (y + 1) % 6
    theirs = torchattacks.APGDT(model, n_classes=6).dlr_loss_targeted(logits, y, targets)
    torch.testing.assert_close(targeted_dlr(logits, torch.stack([y, targets], 1)), theirs)
    torch.testing.assert_close(dlr(3 * logits + 1, y), dlr(logits, y))
    assert torch.equal(margin(logits, y) < 0, logits.argmax(1) == y)
    assert torch.equal(dlr(logits, y) < 0, logits.argmax(1) == y)
    assert dlr(torch.zeros(2, 4), y[:2]).tolist() == [0, 0]


def test_a_network_with_too_few_classes_for_a_loss_gets_no_verdict() -> None:
    model = Linear()
    x, y = batch(model, 8)
    with pytest.raises(GateError, match="targeted DLR loss needs at least 4 classes, and this network has 3"):
        configure("apgdt").perturb(model, x, y, eps=0.1, indices=range(8))


def test_fallen_samples_cost_nothing_more() -> None:
    model = Linear(classes=4)
    x, y = batch(model, 100)
    places = torch.arange(100) % 4 != 0
    for name in ("apgd", "apgdt", "sapgd"):
        model.images_seen = 0
        attack = configure(name, steps=50)
        assert not attack.perturb(model, x[places], y[places], eps=0.3, indices=range(75)).robust.any()
        assert model.images_seen < 75 * 10, name
