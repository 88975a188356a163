"""What is true of the ResNet-18s alone; what holds for every architecture is in the contract tests."""

from __future__ import annotations

import pytest
from networks import SMALL

from tdsnn.errors import UsageError
from tdsnn.models import MODELS
from tdsnn.topography.outputs import sheet_shapes

pytestmark = pytest.mark.parametrize("name", ["resnet18", "sresnet18"])


def test_parameter_count_of_the_published_size(name: str) -> None:
    assert sum(p.numel() for p in MODELS.load(name)().parameters()) == 11_173_962


def test_every_block_lies_on_a_sheet(name: str) -> None:
    layers = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
    assert MODELS.load(name)(**SMALL).sheet_layers == layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"stem": "vgg"}, "stem 'vgg'"),
        ({"mean": [0.5]}, "mean and std need 2 values"),
        ({"std": [0.2, 0.0]}, "std above 0"),
        ({"std": [0.2, float("inf")]}, "finite numbers"),
        ({"mean": [0.2, float("nan")]}, "finite numbers"),
        ({"mean": {}, "std": {}}, "mean and std need 2 values"),
    ],
)
def test_wrong_arguments_are_refused(name: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MODELS.load(name)(**{**SMALL, **change})


def test_imagenet_stem_reduces_fourfold(name: str) -> None:
    model = MODELS.load(name)(**{**SMALL, "width": 4}, stem="imagenet")
    assert sheet_shapes(model, model.sheet_specs.values(), image_shape=(2, 64, 64))["layer1.0"] == (4, 16, 16)
