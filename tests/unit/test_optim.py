"""Muon: orthogonal steps of a set size for convolutions, AdamW for everything else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdsnn.schema import Recipe
from tdsnn.training.optim import Muon, build_optimizer, orthogonalise, schedule, set_lr

RECIPE = Recipe(optimizer="muon", lr=3e-3, matrix_lr=0.06, weight_decay=0.05, epochs=4, warmup_epochs=1.0)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, *, seed: int) -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), torch.arange(6) % 3).backward()
    optimizer.step()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1_000))
def test_singular_vectors_stay_and_values_come_near_one(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    # The five iterations lift what is above a hundredth of the norm; below that they promise nothing.
    strong = values / values.norm() > 0.02
    found = u.T @ orthogonalise(matrix).double() @ v.T
    # Authors' range of the quintic: 0.68 to 1.13 after it has converged.
    assert (found.diagonal()[strong] > 0.4).all()
    assert (found.diagonal() < 1.25).all()
    assert found[strong][:, strong].fill_diagonal_(0).abs().max() < 1e-3


def test_the_step_has_its_size_and_the_norm_stays() -> None:
    model = net()
    optimizer = build_optimizer(model, RECIPE)
    weight = model[0].weight
    assert float(weight.detach().norm()) == pytest.approx(math.sqrt(8), rel=1e-6)
    before = weight.detach().clone()
    learn(model, optimizer, seed=1)
    assert float(weight.detach().norm()) == pytest.approx(math.sqrt(8), rel=1e-6)
    # The first step is exactly as asked for, but for the turn that keeps the norm.
    turn = float((weight.detach() - before).norm()) / math.sqrt(8)
    assert turn == pytest.approx(0.06, rel=0.1)


def test_the_direction_is_that_of_pytorch() -> None:
    """One step of ``torch.optim.Muon`` on the same matrix and gradient points the same way."""
    torch.manual_seed(3)
    start, gradient = torch.randn(16, 8, 3, 3), torch.randn(16, 8, 3, 3)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(_flat(start))
    optimizer = Muon([ours], [], [], matrix_lr=0.01, lr=1.0, weight_decay=0.0)
    begun = ours.detach().clone()
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, momentum=0.9, nesterov=True)
    ours.grad, theirs.grad = gradient, _flat(gradient)
    optimizer.step()
    reference.step()
    moved, wanted = _flat(ours.detach() - begun), theirs.detach() - _flat(start)
    # Theirs iterates in bfloat16; ours turns a little to keep the norm.
    assert float(nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0)) > 0.99


def _flat(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1).clone()


def test_all_other_parameters_are_adamws() -> None:
    model, twin = net(), net()
    optimizer = build_optimizer(model, RECIPE)
    others = [twin[5].weight, *(p for p in twin.parameters() if p.ndim == 1)]
    decayed = {"params": others[:1], "weight_decay": 0.05}
    reference = torch.optim.AdamW([decayed, {"params": others[1:], "weight_decay": 0.0}], lr=3e-3)
    ours = [model[5].weight, *(p for p in model.parameters() if p.ndim == 1)]
    for seed in range(4):
        gradients = torch.Generator().manual_seed(seed)
        for one, other in zip(ours, others, strict=True):
            one.grad = torch.randn(one.shape, generator=gradients)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other)


def test_each_group_has_its_own_peak_and_one_schedule() -> None:
    optimizer = build_optimizer(net(), RECIPE)
    for epoch in (0.5, 1.0, 2.5, 4.0):
        set_lr(optimizer, RECIPE, epoch)
        share = schedule(RECIPE, epoch)
        rates = {bool(group["matrices"]): group["lr"] for group in optimizer.param_groups}
        assert rates == {True: pytest.approx(0.06 * share), False: pytest.approx(3e-3 * share)}


def test_the_state_goes_on_where_it_was() -> None:
    whole, parts = net(), net()
    first = build_optimizer(whole, RECIPE)
    for seed in range(4):
        learn(whole, first, seed=seed)
    before = build_optimizer(parts, RECIPE)
    for seed in range(2):
        learn(parts, before, seed=seed)
    again = net()
    after = build_optimizer(again, RECIPE)
    again.load_state_dict(parts.state_dict())
    after.load_state_dict(before.state_dict())
    for seed in range(2, 4):
        learn(again, after, seed=seed)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_of_nothing_moves_nothing() -> None:
    weight = nn.Parameter(torch.randn(4, 2, 3, 3))
    optimizer = Muon([weight], [], [], matrix_lr=0.1, lr=1.0, weight_decay=0.0)
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(weight, before)
