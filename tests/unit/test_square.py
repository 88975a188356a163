"""Square attack: its squares, its schedule, and an independent implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Linear, batch, images

from tdsnn.attacks._base import configure
from tdsnn.attacks._losses import margin
from tdsnn.attacks.square import Square


class _Watched(nn.Module):
    """Keeps all images that it was shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        logits: Tensor = self.model(x)
        return logits


def test_it_begins_with_stripes_and_then_moves_one_square() -> None:
    model = _Watched(Linear(twist=lambda _x, logits: logits * 0 + torch.tensor([1.0, 0, 0]))).eval()
    x = images(20)
    y = model(x).argmax(1)
    model.seen = []
    outcome = configure("square", queries=40).perturb(model, x, y, eps=0.1, indices=range(20))
    _, stripes, *candidates, _ = model.seen
    change = stripes - x
    assert torch.allclose(change.abs(), torch.tensor(0.1), atol=1e-6)
    assert (change.sign() == change[:, :, :1].sign()).all()
    for candidate in candidates[:5]:
        moved = (candidate - stripes).abs() > 1e-6
        assert ((candidate - x).abs() <= 0.1 + 1e-6).all()
        # Nothing is gained on this model, so every query starts from the stripes.
        assert (moved.flatten(1).sum(1) <= 16).all()
        assert moved.any()
    assert torch.equal(outcome.x_adv, stripes)
    corners = {tuple(place) for one in candidates for place in (one - stripes).nonzero()[:, 2:].tolist()}
    assert len(corners) == 16


def test_sides_are_those_of_the_schedule() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    reference = torchattacks.Square(nn.Linear(1, 1), n_queries=10_000, resc_schedule=False)
    attack, x = Square(), torch.zeros(1, 3, 28, 28)
    for query in (1, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001):
        share = reference.p_selection(query)
        area = attack._square(x, query, torch.zeros(1, 5)).count_nonzero() / 3
        assert area == max(round((share * 28 * 28) ** 0.5), 1) ** 2


def test_the_margin_never_falls_and_more_queries_never_fool_fewer() -> None:
    model = Linear()
    x, y = batch(model, 100)
    before = margin(model(x), y)
    margins, robust = [], []
    for queries in (1, 30, 300):
        outcome = configure("square", queries=queries).perturb(model, x, y, eps=0.04, indices=range(100))
        margins.append(margin(model(outcome.x_adv), y))
        robust.append(outcome.robust)
    assert before[robust[-1]].mean() < margins[1][robust[-1]].mean() < margins[2][robust[-1]].mean()
    for weak, strong in ((0, 1), (1, 2)):
        assert not (robust[strong] & ~robust[weak]).any()
        assert robust[strong].sum() < robust[weak].sum()
        assert (margins[strong] >= margins[weak] - 1e-6)[robust[strong]].all()


def test_it_asks_for_no_gradient_and_for_nothing_of_the_fallen() -> None:
    def refuse(x: Tensor, logits: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return logits

    model = Linear(twist=refuse)
    x, y = batch(Linear(), 100)
    places = torch.arange(100) % 4 != 0
    model.images_seen = 0
    outcome = configure("square", queries=400).perturb(
        model, x[places], y[places], eps=0.3, indices=range(75)
    )
    assert not outcome.robust.any()
    assert model.images_seen < 75 * 100


def test_robust_accuracy_is_that_of_an_independent_implementation() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = Linear().requires_grad_(False)
    x = images(400)
    y = model.eval()(x).argmax(1)
    ours = configure("square", queries=200).perturb(model, x, y, eps=0.05, indices=range(400)).robust
    reference = torchattacks.Square(model, eps=0.05, n_queries=200, resc_schedule=False)
    # Its own draw never covers the last row and column, a third of these small images.
    reference.random_int = lambda low, high: (low + (high - low + 1) * torch.rand(1)).long()
    with torch.random.fork_rng(devices=[]):
        x_adv = reference(x, y)
    theirs = model(x_adv).argmax(1) == y
    assert 0.1 < theirs.float().mean() < 0.9
    assert 100 * float(ours.float().mean()) == pytest.approx(100 * float(theirs.float().mean()), abs=3)
