"""Adversarial training: the attack on a batch, what it leaves alone, exact resume, and that it helps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import UNSET
from msgspec.structs import replace
from torch import Tensor, nn
from toys import Linear, batch

from tdsnn.cli.train import describe
from tdsnn.data._base import Split, load_training
from tdsnn.errors import GateError, UsageError
from tdsnn.evaluation import clean, evaluate
from tdsnn.manifest import parse, resolve
from tdsnn.models._base import Model
from tdsnn.models._neurons import State
from tdsnn.registry import Registry
from tdsnn.schema import Adversarial, Manifest, Recipe
from tdsnn.schema import plain as as_plain
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.training.adversarial import Adversary, withstands
from tdsnn.training.loop import LOG
from tdsnn.training.recipe import override
from tdsnn.training.state import check_settings, read_settings, settings_digest, write_settings
from tests.training import Quiet, make_split, small, trainer

pytestmark = pytest.mark.usefixtures("threads")

EPS = "recipe.adversarial.eps_255=16"
RECIPE = Recipe(precision="fp32")


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


def attacked(settings: Adversarial, *, epoch: int = 0, rows: slice = slice(None), **recipe: Any) -> Any:
    """A linear model that was attacked, its images, and what became of them."""
    model = Linear()
    model.dropout.p = 0.0
    x, y = batch(model, 24)
    adversary = Adversary(settings, task=CLASSIFICATION, recipe=replace(RECIPE, **recipe))
    indices, model.images_seen = torch.arange(24)[rows], 0
    found = adversary.perturb(model.train(), x[rows], y[rows], indices=indices, epoch=epoch, step=0)
    return model, x[rows], y[rows], found


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps_255", [8.0, 200.0])
def test_the_attacked_batch_stays_in_its_ball_and_range(norm: Any, eps_255: float, steps: int) -> None:
    settings = Adversarial(eps_255=eps_255, norm=norm, steps=steps)
    model, x, y, found = attacked(settings)
    moved = (found - x).flatten(1)
    lengths = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert float(lengths.max()) <= eps_255 / 255 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert model.images_seen == steps * 24, "one pass for each step"
    with torch.no_grad():
        losses = [CLASSIFICATION.loss(model(images), y).mean() for images in (x, found)]
    assert float(losses[1]) > float(losses[0])


def test_the_step_is_a_fraction_of_eps_from_a_start_of_its_own() -> None:
    """One full step of twice the radius ends in the corner of the ball that the gradient points to."""
    model, x, y, found = attacked(Adversarial(eps_255=10, step_fraction=2.0))
    start = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(CLASSIFICATION.loss(model(start), y).sum(), start)
    aimed = 10 / 255 * gradient.sign()
    assert float((found - x - aimed).abs().gt(1e-6).float().mean()) < 0.05, "the start turns few signs"
    _, x, _, started = attacked(Adversarial(eps_255=10, step_fraction=1e-6))
    share = (started - x) * 255 / 10
    assert float(share.abs().mean()) == pytest.approx(0.5, abs=0.05), "uniform in the ball"


def test_draws_belong_to_seed_epoch_and_image() -> None:
    settings = Adversarial(eps_255=8)
    *_, whole = attacked(settings)
    *_, half = attacked(settings, rows=slice(12, None))
    torch.testing.assert_close(whole[12:], half, rtol=0, atol=1e-6)
    assert not torch.equal(attacked(settings, epoch=1)[3], whole)
    assert not torch.equal(attacked(settings, seed=1)[3], whole)


def test_the_attack_leaves_nothing_behind(tmp_path: Path, split: Split) -> None:
    run = trainer(small(EPS, "recipe.adversarial.steps=2"), tmp_path, split)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    run.model.train()
    mine = run.passes.attacked(run._chunk(torch.arange(8), epoch=0, step=0))
    assert len(mine) == 8
    assert run.model.training
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in run.model.parameters())
    run.run(Quiet(), stop_after=1)
    assert int(run.model.bn1.num_batches_tracked) == 1, "statistics count the batch that is learned from"


@pytest.mark.parametrize("more", [(), ("recipe.adversarial.steps=2", "ema_decay=0.9", "bn_batches=2")])
def test_resume_is_bit_equal(tmp_path: Path, split: Split, more: tuple[str, ...]) -> None:
    manifest = small("augmentation=['flip']", EPS, *more)
    trainer(manifest, tmp_path / "whole", split).run(Quiet())
    trainer(manifest, tmp_path / "parts", split).run(Quiet(), stop_after=8)
    second = trainer(manifest, tmp_path / "parts", split)
    second.resume()
    second.run(Quiet())
    one, two = (tmp_path / part / "checkpoint" / "model.safetensors" for part in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
    logs = [(tmp_path / part / LOG).read_text().splitlines() for part in ("whole", "parts")]
    for first, other in zip(*logs, strict=True):
        ours, theirs = json.loads(first), json.loads(other)
        for key in ("task", "held_out_accuracy", "held_out_robust_accuracy"):
            assert ours[key] == theirs[key]
        assert 0 <= ours["held_out_robust_accuracy"] <= ours["held_out_accuracy"]
        assert f"held out, attacked {ours['held_out_robust_accuracy']:.2%}" in describe(ours)


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path: Path, split: Split) -> None:
    run = trainer(small(EPS), tmp_path, split)
    with torch.no_grad():
        run.model.fc.weight.fill_(math.nan)
    with pytest.raises(
        GateError, match="input gradient of epoch 1, step 1 is not finite; the run ended"
    ) as got:
        run.run(Quiet())
    assert "--set lr=" in got.value.hint


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.adversarial.eps_255=0", "above 0 and at most 255 for 'recipe.adversarial.eps_255', not 0"),
        ("recipe.adversarial.eps_255=256", "for 'recipe.adversarial.eps_255', not 256"),
        ("recipe.adversarial.steps=0", "from 1 to 100 for 'recipe.adversarial.steps', not 0"),
        (
            "recipe.adversarial.norm=linff",
            "'l2' or 'linf' for 'recipe.adversarial.norm', not 'linff'; did you",
        ),
        ("recipe.adversarial.step_fraction=0", "for 'recipe.adversarial.step_fraction', not 0"),
        ("recipe.adversarial.eps255=8", "unknown key 'recipe.adversarial.eps255'; did you mean 'eps_255'?"),
        ("adversarial=8", "needs a table for 'recipe.adversarial', not 8"),
        ("adversarial={steps = 2}", "lacks the key 'recipe.adversarial.eps_255'"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(resolve("sresnet18"), [*([EPS] if setting.startswith("recipe") else []), setting])
    assert message in caught.value.message
    assert caught.value.hint


def test_settings_from_before_are_as_they_were(tmp_path: Path) -> None:
    """A run that began before there was adversarial training goes on, and its digest has not changed."""
    without = override(resolve("tsresnet18.fashion_mnist"), [])
    assert settings_digest(without) == "eafe8be2a2540082710ec83f6217db193a3604e8da716b22f6a0b5efdccce74f"
    assert "adversarial" not in as_plain(without.recipe)
    assert without.recipe.adversarial is UNSET
    write_settings(tmp_path, without)
    assert read_settings(tmp_path) == without
    with pytest.raises(UsageError, match=r"began with None for 'recipe\.adversarial'"):
        check_settings(tmp_path, override(without, [EPS]))


def test_the_recipe_of_a_manifest_comes_back(tmp_path: Path) -> None:
    text = (
        'summary = "x"\ntwin = "x.y"\n[model]\narchitecture = "sresnet18"\n[data]\nname = "digits"\n'
        "[recipe.adversarial]\neps_255 = 8\nsteps = 2\n"
    )
    manifest = override(parse("x.y", text), [])
    assert manifest.recipe.adversarial == Adversarial(eps_255=8.0, steps=2)
    write_settings(tmp_path, manifest)
    assert read_settings(tmp_path).recipe == manifest.recipe


class _Shallow(Model):
    """Two convolutions, which learn digits in seconds."""

    def __init__(self) -> None:
        super().__init__(
            architecture="shallow",
            arguments={},
            timesteps=1,
            num_classes=10,
            in_channels=1,
            mean=(0.3,),
            std=(0.4,),
            sheet_specs=(),
        )
        self.first = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 10, 8)

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        return self.second(self.norm(self.first(x)).relu()).flatten(1), dict(state)


def test_networks_trained_under_attack_withstand_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    real = Registry.load
    monkeypatch.setattr(
        Registry, "load", lambda registry, name: _Shallow if name == "shallow" else real(registry, name)
    )
    rest, held_out = load_training("digits")
    ball = Adversarial(eps_255=32)
    plain, robust = [], []
    for adversarial in (UNSET, ball):
        recipe = replace(RECIPE, epochs=4, batch_size=32, lr=0.01, adversarial=adversarial)
        manifest = Manifest(
            name="x.y", summary="x", twin="x.y", architecture="shallow", dataset="digits", recipe=recipe
        )
        run = trainer(manifest, tmp_path / str(len(robust)), rest)
        run.held_out = held_out
        run.run(Quiet())
        plain.append(evaluate(clean(run.model, CLASSIFICATION), held_out, device=run.device).mean())
        judge = withstands(run.model, ball, task=CLASSIFICATION, seed=0)
        robust.append(evaluate(judge, held_out, device=run.device).mean())
    assert min(plain) > 0.8
    assert robust[1] > robust[0] + 0.2
