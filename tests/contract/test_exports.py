"""Every registered architecture answers the same from every format, or is refused by an operator's name."""

from __future__ import annotations

from pathlib import Path

import exports
import pytest
import torch
from networks import network, pictures, taken
from torch import nn

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.exporting.formats import FORMATS, Exported
from tdsnn.exporting.verification import Agreement
from tdsnn.models import MODELS, Model

SHAPE = (2, 16, 16)
STEPS = 2
PAIRS = [(format, name) for format in FORMATS.names() for name in MODELS.names()]
COMPLETE = ("onnx", "torch_export")
"""Formats that express whatever the architectures of this project compute."""


@pytest.fixture(params=PAIRS, ids="-".join, scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Exported, Path]:
    """An architecture, and its exported file read back."""
    format, name = request.param
    exporter = FORMATS.load(format)
    pytest.importorskip("onnx")
    model = network(name, **taken(name, {"width": 4, "num_classes": 7, "timesteps": STEPS}))
    path = tmp_path_factory.mktemp("exports") / f"{name}{exporter.suffix}"
    try:
        return model, exports.write(exporter, model, path, shape=SHAPE), path
    except UsageError as error:
        refused = error
    if format in COMPLETE or "the operator '" not in refused.message:
        raise refused
    pytest.skip(refused.message)


@pytest.mark.parametrize("images", [1, 3, 7])
def test_logits_and_spikes_are_the_models(pair: tuple[Model, Exported, Path], images: int) -> None:
    """For any number of images, of any order of magnitude that pixels have."""
    model, exported, _ = pair
    agreement = Agreement()
    agreement.add(model, exported, pictures(images, seed=images), timesteps=model.timesteps)
    assert agreement.images == images
    assert agreement.worst_difference < 1e-5
    assert agreement.argmax_differences == agreement.flipped_images == 0
    assert {one.layer for one in agreement.layers} == {
        name for name, layer in model.named_modules() if layer in model.neurons
    }


def test_every_spiking_layer_fires(pair: tuple[Model, Exported, Path]) -> None:
    """The test above would pass on silence."""
    model, exported, _ = pair
    for layer, spikes in exported.spikes(pictures(3)).items():
        assert spikes.shape[:2] == (model.timesteps, 3)
        assert 0 < spikes.float().mean() < 1, layer


def test_the_file_says_what_it_is(pair: tuple[Model, Exported, Path]) -> None:
    model, exported, path = pair
    assert exported.metadata == exports.metadata(model, shape=SHAPE)
    content = path.read_bytes()
    assert str(Path(exports.__file__).parents[1]).encode() not in content, "a folder of this machine"


def test_another_model_does_not_agree(pair: tuple[Model, Exported, Path]) -> None:
    model, exported, _ = pair
    other = network(model.architecture, **model.arguments)
    with torch.no_grad():
        next(layer for layer in other.modules() if isinstance(layer, nn.Conv2d)).weight.mul_(1.01)
    agreement = Agreement()
    agreement.add(other, exported, pictures(5), timesteps=model.timesteps)
    assert agreement.worst_difference > 1e-4


def test_a_damaged_file_is_refused(pair: tuple[Model, Exported, Path], tmp_path: Path) -> None:
    _, _, path = pair
    exporter = next(one for one in exports.exporters().values() if path.suffix == one.suffix)
    damaged = tmp_path / path.name
    for content in (b"", b"no such thing", path.read_bytes()[:-200]):
        damaged.write_bytes(content)
        with pytest.raises(IntegrityError, match="cannot be read"):
            exporter.read(damaged)
