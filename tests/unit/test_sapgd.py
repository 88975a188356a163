"""SA-PGD beside its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from toys import Linear, batch, flat

from tdsnn.attacks._base import configure
from tdsnn.attacks._draws import SampleDraws


def test_iterates_are_those_of_the_formula() -> None:
    """Each sample alone and in double precision; checkpoints of 10 steps are 2, 3, 4, ..."""
    model = Linear(twist=lambda x, logits: logits + 3 * torch.sin(9 * logits)).double()
    x, y = batch(model, 12)
    x, eps = x.double(), 1e-4
    places = torch.arange(12) % 4 != 0
    attack = configure("sapgd", steps=10)
    outcome = attack.perturb(model, x[places], y[places], eps=eps, indices=range(9))
    start = attack.start(
        x[places], eps=eps, norm="linf", generator=SampleDraws(seed=0, stream="sapgd", indices=range(9))
    )
    compared = 0
    for index in outcome.robust.nonzero().flatten().tolist():
        image, point, label = x[places][index], start[index], y[places][index : index + 1]
        mean, square, size = torch.zeros_like(image), torch.zeros_like(image), eps
        for step in range(10):
            leaf = point[None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), label), leaf)
            size = size / 2 if step in (2, 3, 4, 5, 6, 7, 8, 9) else size
            mean = 0.5 * mean + gradient[0] / gradient.abs().mean()
            square = 0.8 * square + gradient[0] ** 2 / (gradient**2).mean()
            point = point + (mean / square.sqrt() * size).clamp(-size, size)
            point = point.clamp(image - eps, image + eps).clamp(0, 1)
        torch.testing.assert_close(outcome.x_adv[index], point, rtol=0, atol=1e-9)
        compared += 1
    assert compared > 3


def test_a_sample_without_gradient_keeps_its_start() -> None:
    model = flat()
    x, y = batch(model, 8)
    attack = configure("sapgd", steps=5)
    outcome = attack.perturb(model, x, y, eps=1e-3, indices=range(8))
    assert outcome.x_adv.isfinite().all()
    assert outcome.robust.sum() == 6
    draws = SampleDraws(seed=0, stream="sapgd", indices=range(8))
    start = attack.start(x, eps=1e-3, norm="linf", generator=draws)
    torch.testing.assert_close(outcome.x_adv[1], start[1])


def test_gradients_of_any_size_give_the_same_steps() -> None:
    found = []
    for scale in (1e-25, 1.0, 1e25):
        model = Linear(twist=lambda x, logits, scale=scale: _scaled(logits, scale))
        x, y = batch(model, 12)
        found.append(configure("sapgd", steps=5).perturb(model, x, y, eps=0.001, indices=range(12)).x_adv)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-6)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, scale):
        ctx.scale = scale
        return logits.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.scale, None


def _scaled(logits: torch.Tensor, scale: float) -> torch.Tensor:
    """The same logits with gradients of another size, as surrogates give them."""
    return _Scale.apply(logits, scale)


@pytest.mark.parametrize("name", ["pgd", "apgd", "sapgd"])
def test_gradients_too_large_to_square_are_followed_in_every_norm(name: str) -> None:
    model = Linear(twist=lambda x, logits: _scaled(logits, 1e25))
    x, y = batch(model, 12)
    attack = configure(name, steps=5)
    for norm in attack.norms():
        outcome = attack.perturb(model, x, y, eps=0.3, norm=norm, indices=range(12))
        plain = attack.perturb(Linear(), x, y, eps=0.3, norm=norm, indices=range(12))
        assert torch.equal(outcome.robust, plain.robust)
