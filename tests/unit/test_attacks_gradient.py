"""FGSM and PGD against known optima, and the parts they share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import CLASSES, Linear, batch, flat, images

from tdsnn.attacks._base import configure
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import loss_gradient
from tdsnn.tasks.classification import CLASSIFICATION


class TwoClasses(Linear):
    """One weight row and its negative, so that FGSM finds the exact worst case."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.weight[1] = -self.weight[0]
            self.weight[2] = 0
        self.twist = lambda _x, logits: torch.cat([logits[:, :2], logits[:, 2:] - 1e6], 1)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("eps", [0.005, 0.02, 0.08])
def test_the_exact_worst_case_of_a_linear_model_is_found(name: str, eps: float) -> None:
    model = TwoClasses().eval()
    x = images(200)
    y = model(x).argmax(1)
    logits = (x - 0.5).flatten(1) @ model.weight.T
    exact = logits[:, :2].abs()[:, 0] > eps * model.weight[0].abs().sum()
    outcome = configure(name).perturb(model, x, y, eps=eps, indices=range(200))
    assert 0 < int(exact.sum()) < 200
    assert torch.equal(outcome.robust, exact)


def test_pgd_starts_anywhere_in_the_ball_and_elsewhere_for_another_seed() -> None:
    model = flat()
    x, y = batch(model, 400)
    first, other = (
        configure("pgd").perturb(model, x, y, eps=0.1, indices=range(400), seed=seed) for seed in (0, 1)
    )
    moved = (first.x_adv - x)[first.clean]
    assert moved.abs().amax() > 0.0999
    assert moved.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.03)
    assert not (first.x_adv == other.x_adv)[first.clean].any()


def test_the_gradient_is_that_of_the_summed_loss_and_reaches_the_input_only() -> None:
    model = Linear().eval()
    x, y = batch(model, 6)
    logits, gradient = loss_gradient(model, x, y, CLASSIFICATION.loss)
    residual = logits.softmax(1) - nn.functional.one_hot(y, CLASSES)
    torch.testing.assert_close(gradient.flatten(1), (residual @ model.weight).detach())
    assert model.weight.grad is None
    alone = loss_gradient(model, x[2:3], y[2:3], CLASSIFICATION.loss)[1]
    torch.testing.assert_close(alone[0], gradient[2])


def test_an_iterate_on_the_way_counts_as_success() -> None:
    """The model is fooled at the first step only; ten steps of ascent leave that place again."""
    base = images(1) * 0 + 0.5

    def pothole(x: Tensor, _logits: Tensor) -> Tensor:
        pixel = x.flatten(1)[:, 0]
        dip = ((pixel - 0.025).abs() < 0.01).float() * 10
        return torch.stack([torch.ones_like(pixel), pixel - 1 + dip, pixel * 0 - 50], 1)

    model = Linear(twist=pothole)
    attack = configure("pgd", random_start=False)
    outcome = attack.perturb(model, base, torch.tensor([0]), eps=0.1, indices=[0])
    assert outcome.robust.sum() == 0
    assert outcome.x_adv.flatten()[0] == pytest.approx(0.525)


def test_fooled_samples_cost_nothing_more() -> None:
    model = Linear()
    x, y = batch(model, 100)
    places = torch.arange(100) % 4 != 0
    model.images_seen = 0
    outcome = configure("pgd", steps=50).perturb(model, x[places], y[places], eps=0.3, indices=range(75))
    assert outcome.robust.sum() == 0
    # Clean verdict, search and final check of 75 samples; without dropping it would be 75 * 52.
    assert model.images_seen < 75 * 10


def test_an_image_without_gradient_survives_unchanged() -> None:
    model = flat()
    x, y = batch(model, 8)
    outcome = configure("fgsm").perturb(model, x, y, eps=0.1, indices=range(8))
    assert torch.equal(outcome.x_adv, x)
    assert outcome.robust.sum() == 6


def test_gaussian_noise_has_the_asked_deviation_and_the_same_draw_at_every_strength() -> None:
    model = Linear(twist=lambda _x, logits: logits * 0 + torch.tensor([1.0, 0, 0]))
    x, y = images(2000), torch.zeros(2000, dtype=torch.int64)
    weak, strong = (
        configure("gaussian").perturb(model, x, y, eps=eps, indices=range(2000)).x_adv - x
        for eps in (0.02, 0.04)
    )
    assert weak.std().item() == pytest.approx(0.02, rel=0.02)
    assert weak.mean().abs() < 3 * 0.02 / (2000 * 16) ** 0.5
    torch.testing.assert_close(strong, 2 * weak, atol=1e-6, rtol=0)


def test_draws_are_uniform_and_belong_to_seed_stream_and_index() -> None:
    like = torch.empty(500, 1, 4, 4)
    draws = SampleDraws(seed=0, stream="pgd", indices=range(500)).uniform(like)
    assert -1 <= draws.min() < -0.999
    assert 0.999 < draws.max() < 1
    assert draws.mean().abs() < 4 * (1 / 3 / draws.numel()) ** 0.5
    assert len(draws.flatten(1).unique(dim=0)) == 500
    for seed, stream in ((1, "pgd"), (0, "gaussian")):
        other = SampleDraws(seed=seed, stream=stream, indices=range(500)).uniform(like)
        assert not (other == draws).flatten(1).all(1).any()


def test_later_draws_of_a_stream_are_new_numbers() -> None:
    draws = SampleDraws(seed=0, stream="pgd", indices=[7])
    like = torch.empty(1, 1, 4, 4)
    assert not torch.equal(draws.normal(like), draws.normal(like))
