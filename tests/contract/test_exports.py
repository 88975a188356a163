"""Every registered architecture answers the same from every format, or is refused by an operator's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import exports
import pytest
import torch
from networks import network, pictures, taken
from torch import nn

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.exporting.formats import FORMATS, Exported, Exporter
from tdsnn.exporting.program import Program, trace
from tdsnn.exporting.verification import Agreement
from tdsnn.models import MODELS, Model

pytestmark = pytest.mark.slow
SHAPE = (2, 16, 16)
STEPS = 2
PAIRS = [(format, name) for format in FORMATS.names() for name in MODELS.names()]
COMPLETE = ("onnx", "torch_export")
"""Formats that express whatever the architectures of this project compute."""


@dataclass(frozen=True)
class Pair:
    """An architecture, and its exported file read back."""

    model: Model
    exporter: Exporter
    path: Path
    exported: Exported


@cache
def small(name: str) -> Model:
    return network(name, **taken(name, {"width": 4, "num_classes": 7, "timesteps": STEPS}))


@cache
def program(name: str, steps: int) -> Program:
    """Formats write the same one: none may change it."""
    return trace(small(name), SHAPE, steps)


@pytest.fixture(params=PAIRS, ids="-".join, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    format, name = request.param
    exporter = FORMATS.load(format)
    pytest.importorskip("onnx")
    model = small(name)
    about = exports.metadata(model, shape=SHAPE)
    path = tmp_path_factory.mktemp("exports") / f"{name}{exporter.suffix}"
    try:
        path.write_bytes(exporter.encode(program(name, exporter.unrolled(STEPS)), about))
        return Pair(model, exporter, path, exporter.read(path))
    except UsageError as error:
        refused = error
    if format in COMPLETE or not re.search("cannot express the (operator|memory) '", refused.message):
        raise refused
    pytest.skip(refused.message)


@pytest.mark.parametrize("images", [1, 3, 7])
def test_logits_and_spikes_are_the_models(pair: Pair, images: int) -> None:
    """For any number of images, of any order of magnitude that pixels have."""
    model, exported = pair.model, pair.exported
    agreement = Agreement()
    agreement.add(model, exported, pictures(images, seed=images), timesteps=model.timesteps)
    assert agreement.images == images
    assert agreement.worst_difference < 1e-5
    assert agreement.flipped_images == len(agreement.other_classes) == 0
    assert {one.layer for one in agreement.layers} == {
        name for name, layer in model.named_modules() if layer in model.neurons
    }


def test_every_spiking_layer_fires(pair: Pair) -> None:
    """The test above would pass on silence."""
    model, exported = pair.model, pair.exported
    for layer, spikes in exported.spikes(pictures(3)).items():
        assert spikes.shape[:2] == (model.timesteps, 3)
        assert 0 < spikes.float().mean() < 1, layer


def test_the_file_says_what_it_is(pair: Pair) -> None:
    assert pair.exported.metadata == exports.metadata(pair.model, shape=SHAPE)
    content = pair.path.read_bytes()
    assert str(Path(exports.__file__).parents[1]).encode() not in content, "a folder of this machine"


def test_another_model_does_not_agree(pair: Pair) -> None:
    model, exported = pair.model, pair.exported
    other = network(model.architecture, **model.arguments)
    with torch.no_grad():
        next(layer for layer in other.modules() if isinstance(layer, nn.Conv2d)).weight.mul_(1.01)
    agreement = Agreement()
    agreement.add(other, exported, pictures(5), timesteps=model.timesteps)
    assert agreement.worst_difference > 1e-4


def test_a_damaged_file_is_refused(pair: Pair, tmp_path: Path) -> None:
    damaged = tmp_path / pair.path.name
    for content in (b"", b"no such thing", pair.path.read_bytes()[:-200]):
        damaged.write_bytes(content)
        with pytest.raises(IntegrityError, match="cannot be read"):
            pair.exporter.read(damaged)
