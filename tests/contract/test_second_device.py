"""Everything that is registered computes on another device what it computes on the CPU."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import maps
import numpy as np
import pytest
import torch
from networks import network, pictures, taken
from second_device import second_device
from torch import Tensor
from toys import Linear, batch

from tdsnn.attacks._base import ATTACKS, configure
from tdsnn.data._base import Split
from tdsnn.evaluation import clean, evaluate
from tdsnn.exporting.program import trace
from tdsnn.inference import early_exit, stream
from tdsnn.maps.survey import survey
from tdsnn.metrics._base import METRICS
from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS
from tdsnn.schema import Topography
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.temporal._base import TIME_METRICS, Subject
from tdsnn.temporal._spec import time_metrics
from tdsnn.topography.alignment import measure_alignment
from tdsnn.topography.losses._base import SPATIAL_LOSSES
from tdsnn.topography.outputs import capture_outputs
from tdsnn.topography.positions import optimise_positions
from tdsnn.topography.preparation import fresh_sheets
from tdsnn.topography.responses import record_responses
from tdsnn.training.loop import Trainer
from tests.training import Quiet, make_split, small

pytestmark = pytest.mark.usefixtures("threads")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
STEPS = {"timesteps": 2}


@pytest.fixture
def device() -> Iterator[str]:
    """One of two, and not the one that ``cuda`` alone means."""
    with second_device(1):
        yield "cuda:1"


def sheeted(name: str, **arguments: object) -> Model:
    model = network(name, **(taken(name, STEPS) | arguments))
    model.sheets = fresh_sheets(
        model, model.sheet_specs.values(), Topography(), image_shape=(model.in_channels, 16, 16)
    )
    return model


def moved(model: Model, device: str) -> Model:
    return copy.deepcopy(model).to(device)


def same(there: Tensor, here: Tensor, **tolerances: float) -> None:
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, **(tolerances or CLOSE))


@pytest.mark.parametrize("name", MODELS.names())
def test_models_answer_and_are_differentiated(name: str, device: str) -> None:
    model = network(name, **taken(name, STEPS))
    other = moved(model, device)
    here, there = pictures(3).requires_grad_(), pictures(3).to(device).requires_grad_()
    same(other.logits_over_time(there).detach(), model.logits_over_time(here).detach())
    losses = [one(x).square().sum() for one, x in ((model, here), (other, there))]
    for loss in losses:
        loss.backward()
    same(there.grad, here.grad, rtol=1e-3, atol=1e-4)
    for (layer, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert theirs.grad is not None, layer
        same(theirs.grad, mine.grad, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        same(torch.stack(list(stream(other, there.detach()))), model.logits_over_time(here))
        left, stayed = (early_exit(one, x.detach(), margin=0.1) for one, x in ((other, there), (model, here)))
    assert torch.equal(left.steps.cpu(), stayed.steps)


@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name in ATTACKS.names() for norm in ATTACKS.load(name).budgets]
)
def test_attacks_give_the_same_verdicts(name: str, norm: str | None, device: str) -> None:
    if name == "torchattacks":
        pytest.importorskip("torchattacks")
    model = Linear(classes=4)
    x, y = batch(model, 12)
    fewer = {key: value for key, value in (("queries", 50), ("steps", 4)) if hasattr(ATTACKS.load(name), key)}
    attack = configure(name, **fewer)
    here = attack.perturb(model, x, y, eps=0.1, norm=norm, indices=range(12))
    there = attack.perturb(
        moved(model, device), x.to(device), y.to(device), eps=0.1, norm=norm, indices=range(12)
    )
    assert torch.equal(there.robust.cpu(), here.robust)
    same(there.x_adv, here.x_adv)


@pytest.mark.parametrize("loss", SPATIAL_LOSSES.names())
@pytest.mark.parametrize("name", [name for name in MODELS.names() if network(name).sheet_specs])
def test_losses_and_their_gradients(loss: str, name: str, device: str) -> None:
    model = sheeted(name).train()
    topography = Topography(
        loss=loss,
        alpha=0.5,
        window=min(1, model.timesteps - 1),
        clusters=3,
        cluster_units=12,
        options={"factor_h": 2.0, "factor_w": 2.0} if loss == "topoloss" else {},
    )
    found = []
    for one, x in ((model, pictures(9)), (moved(model, device), pictures(9).to(device))):
        spatial = SPATIAL_LOSSES.load(loss)(one, topography)
        with capture_outputs(one, spatial.layers) as outputs:
            one(x)
        terms = spatial(outputs, generator=torch.Generator().manual_seed(0))
        terms.total.backward()
        found.append(
            (terms, one.conv1.weight.grad if loss != "topoloss" else one.layer1[0].conv1.weight.grad)
        )
    (here, gradient), (there, other) = found
    same(there.total.detach(), here.total.detach())
    same(other, gradient, rtol=1e-3, atol=1e-5)
    for key, value in here.parts.items():
        same(there.parts[key], value)


def test_what_is_exported(device: str) -> None:
    model = network("sresnet18", **STEPS, width=4)
    here, there = (trace(one, (2, 16, 16), 2) for one in (model, moved(model, device)))
    images = pictures(2)
    for one, other in zip(here.exported.module()(images), there.exported.module()(images), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", METRICS.names())
def test_metrics_of_what_a_network_there_answers(name: str, device: str) -> None:
    metric = METRICS.load(name)()
    stimuli = maps.gratings() if metric.stimuli == "gratings" else maps.floc(repeats=2)
    images = pictures(len(stimuli.factors[next(iter(stimuli.factors))]))
    shown = dataclasses.replace(stimuli, images=images)
    model = sheeted("sresnet18")
    found = []
    for one in (model, moved(model, device)):
        answers = record_responses(one, shown, ["layer1.0"])["layer1.0"]
        found.append(answers.rates)
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_a_survey_of_maps(device: str) -> None:
    model = sheeted("sresnet18", in_channels=1, mean=(0.5,), std=(0.5,))
    sheets = {"layer2.0": model.sheets["layer2.0"]}
    here, there = (
        survey({"model": one}, sheets, shape=(1, 16, 16), metrics=["orientation"])
        for one in (model, moved(model, device))
    )
    assert any(entry.measurement for entry in here.entries)
    assert there.document()["entries"] == here.document()["entries"]


def split() -> Split:
    return Split(
        images=(255 * pictures(6)).to(torch.uint8).numpy(),
        labels=np.arange(6) % 10,
        classes=tuple(map(str, range(10))),
        digest="0" * 64,
        pinned=False,
        origin="toy",
    )


@pytest.mark.parametrize("name", [name for name in TIME_METRICS.names() if name != "latency"])
def test_time_metrics(name: str, device: str) -> None:
    (metric,) = time_metrics(["anytime:attack=fgsm,steps=2" if name == "anytime" else name])
    model = sheeted("sresnet18")
    here, there = (
        metric.measure(Subject(model=one, split=split(), n=6, batch_size=4, device=torch.device(on)))
        for one, on in ((model, "cpu"), (moved(model, device), device))
    )
    assert there.figures.keys() == here.figures.keys()
    for key, figure in here.figures.items():
        assert there.figures[key].value == pytest.approx(figure.value, rel=1e-4, abs=1e-6), key


def test_accuracy_alignment_and_positions(device: str) -> None:
    model = sheeted("sresnet18")
    other = moved(model, device)
    judges = [clean(one, CLASSIFICATION) for one in (model, other)]
    places = [torch.device("cpu"), torch.device(device)]
    scores = [evaluate(judge, split(), device=on) for judge, on in zip(judges, places, strict=True)]
    assert (scores[0] == scores[1]).all()
    topography = Topography(cluster_units=12)
    found = [
        measure_alignment(one, model.sheets, [pictures(6)], topography=topography, timesteps=2)
        for one in (model, other)
    ]
    for layer, measured in found[0]["rate"].items():
        assert found[1]["rate"][layer].mean == pytest.approx(measured.mean, abs=1e-4, nan_ok=True)
    rates = torch.rand(5, len(model.sheets["layer2.0"].positions), generator=torch.Generator().manual_seed(0))
    searched = [
        optimise_positions(
            model.sheets["layer2.0"],
            rates.to(on),
            attempts_per_unit=1,
            steps_per_square=5,
            seed=0,
            compiled=False,
        ).positions
        for on in places
    ]
    assert torch.equal(*searched)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sresnet18", ("optimizer=muon",)),
        ("tsresnet18", ("optimizer=muon", "ema_decay=0.9", "bn_batches=1")),
        ("tsresnet18", ("optimizer=sgd", "clip_norm=1.0", "rate_penalty=0.1")),
        ("tsresnet18", ("recipe.adversarial.eps_255=8", "recipe.adversarial.steps=2")),
    ],
    ids=["twin", "STC, average", "SGD", "under attack"],
)
def test_training_gives_the_same_weights(
    name: str, changes: tuple[str, ...], device: str, tmp_path: Path
) -> None:
    """Whatever was trained before in this process, and wherever."""
    weights = []
    for number, on in enumerate((device, "cpu", device)):
        run = Trainer(
            small(*changes, name=name),
            folder=tmp_path / str(number),
            train=make_split(),
            held_out=make_split(),
            device=torch.device(on),
        )
        run.folder.mkdir()
        run.run(Quiet(), stop_after=2)
        assert {str(parameter.device) for parameter in run.model.parameters()} == {on}
        weights.append({key: value.cpu() for key, value in run.model.state_dict().items()})
    there, here, again = weights
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(again[key], there[key])
