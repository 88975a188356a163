"""Restarts of PGD, and PGD in the L2 ball beside its formula and an independent implementation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import Linear, batch, flat, images

from tdsnn.attacks._base import configure
from tdsnn.attacks._draws import SampleDraws


def _rugged() -> Linear:
    """Wrong in a few narrow places only, so that it matters where a search starts; it has no gradient."""

    def twist(x: Tensor, _logits: Tensor) -> Tensor:
        hit = (torch.sin(40 * x.flatten(1).sum(1)) > 0.9).float()
        return torch.stack([0.5 - hit, hit - 0.5, hit * 0 - 9], 1) + 0 * x.flatten(1).sum(1, keepdim=True)

    return Linear(twist=twist)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_restarts_never_fool_fewer_and_here_fool_more(norm: str) -> None:
    model = _rugged().eval()
    x = images(300)
    y = model(x).argmax(1)
    robust = [
        configure("pgd", steps=1, restarts=restarts)
        .perturb(model, x, y, eps=0.1, norm=norm, indices=range(300))
        .robust
        for restarts in (1, 2, 4, 8)
    ]
    for fewer, more in pairwise(robust):
        assert not (more & ~fewer).any()
        assert more.sum() < fewer.sum()


def test_starts_belong_to_a_sample_whoever_else_still_stands() -> None:
    model = _rugged().eval()
    x = images(40)
    y = model(x).argmax(1)
    attack = configure("pgd", steps=1, restarts=6)
    whole = attack.perturb(model, x, y, eps=0.1, indices=range(40))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    permuted = attack.perturb(model, x[order], y[order], eps=0.1, indices=order.tolist())
    assert torch.equal(permuted.x_adv, whole.x_adv[order])
    alone = [attack.perturb(model, x[i : i + 1], y[i : i + 1], eps=0.1, indices=[i]).x_adv for i in range(40)]
    assert torch.equal(torch.cat(alone), whole.x_adv)


def test_one_restart_is_the_attack_without_restarts() -> None:
    model = Linear()
    x, y = batch(model, 40)
    once, more = (
        configure("pgd", restarts=restarts).perturb(model, x, y, eps=0.05, indices=range(40))
        for restarts in (1, 3)
    )
    fallen = once.clean & ~once.robust
    assert fallen.any()
    assert torch.equal(more.x_adv[fallen], once.x_adv[fallen])


def test_samples_that_fell_cost_nothing_in_later_restarts() -> None:
    model = Linear()
    x, y = batch(model, 100)
    places = torch.arange(100) % 4 != 0
    model.images_seen = 0
    attack = configure("pgd", restarts=50)
    outcome = attack.perturb(model, x[places], y[places], eps=0.3, indices=range(75))
    assert not outcome.robust.any()
    assert model.images_seen < 75 * 11


def test_l2_starts_are_uniform_in_the_ball() -> None:
    """In D dimensions a share r^D of the ball lies within r of its centre."""
    like = torch.zeros(4000, 1, 2, 2)
    attack = configure("pgd")
    x = like + 0.5
    draws = SampleDraws(seed=0, stream="pgd", indices=range(4000))
    start = attack.start(x, eps=0.2, norm="l2", generator=draws) - x
    radii = start.flatten(1).norm(dim=1) / 0.2
    assert radii.max() <= 1 + 1e-5
    for radius in (0.5, 0.8, 0.95):
        assert float((radii < radius).float().mean()) == pytest.approx(radius**4, abs=0.02)
    assert start.mean().abs() < 0.005
    assert np.allclose(np.cov(start.flatten(1).T.numpy()), np.eye(4) * 0.2**2 / 6, atol=5e-4)


def _smooth() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 4)
        ).eval()
        x = torch.rand(600, 1, 8, 8)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        return model, x, model(x).argmax(1)


def _literal_l2(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int) -> list[Tensor]:
    """All iterates of x <- clip(x0 + P(x + eps / 4 * g / |g| - x0)), one sample after the other."""
    paths = []
    for one, label in zip(x, y, strict=True):
        current, path = one.clone(), [one.clone()]
        for _ in range(steps):
            leaf = current[None].clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), label[None]), leaf)
            delta = current + eps / 4 * gradient[0] / gradient[0].norm() - one
            if delta.norm() > eps:
                delta = delta * eps / delta.norm()
            current = (one + delta).clamp(0, 1)
            path.append(current)
        paths.append(torch.stack(path))
    return paths


def test_l2_iterates_are_those_of_the_formula() -> None:
    model, x, y = _smooth()
    attack = configure("pgd", steps=5, random_start=False)
    outcome = attack.perturb(model, x[:20], y[:20], eps=0.3, norm="l2", indices=range(20))
    assert 0 < outcome.robust.sum() < 20
    for index, path in enumerate(_literal_l2(model, x[:20], y[:20], eps=0.3, steps=5)):
        with torch.no_grad():
            fooled = (model(path).argmax(1) != y[index]).nonzero()
        expected = path[int(fooled[0]) if len(fooled) else -1]
        torch.testing.assert_close(outcome.x_adv[index], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [0.1, 0.25, 0.5])
def test_l2_robust_accuracy_is_that_of_an_independent_implementation(eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = _smooth()
    ours = configure("pgd").perturb(model, x, y, eps=eps, norm="l2", indices=range(len(x)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x_adv = torchattacks.PGDL2(model, eps=eps, alpha=eps / 4, steps=10)(x, y)
    with torch.no_grad():
        theirs = model(x_adv).argmax(1) == y
    assert 0.01 < theirs.float().mean() < 0.99
    shares = [100 * float(right.float().mean()) for right in (ours.robust, theirs)]
    assert shares[0] == pytest.approx(shares[1], abs=1.5)


def test_an_l2_step_without_gradient_stays_where_it_started() -> None:
    model = flat()
    x, y = batch(model, 8)
    outcome = configure("fgsm").perturb(model, x, y, eps=0.5, norm="l2", indices=range(8))
    assert torch.equal(outcome.x_adv, x)
