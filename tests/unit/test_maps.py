"""A survey of a network whose preferences are known, and the figures drawn of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tdsnn.errors import GateError, MissingError, UsageError
from tdsnn.maps.figures import draw
from tdsnn.maps.stimuli import STIMULI, floc
from tdsnn.maps.survey import SHUFFLED, Survey, shuffle, survey
from tdsnn.metrics._base import METRICS
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.responses import StimulusSet, record_responses
from tdsnn.topography.sheets import CorticalSheet

SHAPE = (1, 28, 28)
ORIENTATIONS = 16


class Oriented(nn.Module):
    """Channel k answers to gratings of k * 180 / 16 degrees, at every place."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 2 * ORIENTATIONS, 9, padding=4, bias=False)
        self.energy = nn.Identity()
        self.silent = silent
        y, x = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-4.0, 5), indexing="ij")
        window = torch.exp(-(x**2 + y**2) / 8)
        waves = []
        for k in range(ORIENTATIONS):
            angle = math.pi * k / ORIENTATIONS
            phase = 2 * math.pi * 0.18 * (x * math.cos(angle) + y * math.sin(angle))
            waves += [window * phase.cos(), window * phase.sin()]
        self.filters.weight.data = torch.stack(waves)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        even, odd = self.filters(images - 0.5).unflatten(1, (-1, 2)).unbind(2)
        energy: Tensor = self.energy(torch.zeros_like(even) if self.silent else even**2 + odd**2)
        return energy.mean((2, 3))


def sheet(*, ordered: bool) -> CorticalSheet:
    """A sheet on which orientation changes smoothly from left to right, or nothing does."""
    made = CorticalSheet.retinotopic(
        SheetSpec("energy", 28.0), (ORIENTATIONS, 28, 28), first_height=28, seed=0
    )
    if not ordered:
        return made
    draws = torch.rand(len(made.positions), 2, generator=torch.Generator().manual_seed(0))
    channel = torch.arange(ORIENTATIONS).repeat_interleave(28 * 28)
    draws[:, 0] = (channel + draws[:, 0]) / ORIENTATIONS
    return replace(made, positions=draws * 28)


@pytest.fixture(scope="module")
def found() -> Survey:
    models = {"ordered": Oriented(), "silent (twin)": Oriented(silent=True)}
    return survey(models, {"energy": sheet(ordered=True)}, shape=SHAPE, metrics=["orientation"])


def test_the_model_is_measured_beside_its_twin_and_the_control(found: Survey) -> None:
    assert found.subjects == ("ordered", "silent (twin)", SHUFFLED)
    measured = found.find("energy", "orientation")
    assert set(measured) == {"ordered", SHUFFLED}
    (refused,) = [entry for entry in found.entries if entry.measurement is None]
    assert refused.subject == "silent (twin)"
    assert "0 of" in refused.error
    smooth = {name: next(iter(one.figures.values())) for name, one in measured.items()}
    assert smooth["ordered"].low > smooth[SHUFFLED].high
    assert smooth["ordered"].value > 0.5


def test_the_document_is_plain_json(found: Survey) -> None:
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["stimuli"] == {"gratings": 320}
    assert document["environment"]["packages"]["torch"] == version("torch")
    assert document["environment"]["device_name"]
    assert [entry["subject"] for entry in document["entries"] if "error" in entry] == ["silent (twin)"]


def test_equal_seeds_give_equal_surveys(found: Survey) -> None:
    models = {"ordered": Oriented(), "silent (twin)": Oriented(silent=True)}
    again = survey(models, {"energy": sheet(ordered=True)}, shape=SHAPE, metrics=["orientation"])
    assert again.document() == found.document()


def test_figures_are_drawn_for_what_was_measured(found: Survey, tmp_path: Path) -> None:
    paths = draw(found, tmp_path)
    assert {path.suffix for path in paths} == {".png", ".svg"}
    assert {path.stem for path in paths} >= {"orientation-bars", "energy-orientation-maps"}
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 200
                extrema = picture.convert("L").getextrema()
            assert extrema[0] != extrema[1], "not blank"
        else:
            assert "n = 320" in path.read_text(encoding="utf-8") or "<svg" in path.read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_is_drawn_of_a_refused_layer(tmp_path: Path) -> None:
    models = {"silent": Oriented(silent=True)}
    refused = survey(models, {"energy": sheet(ordered=False)}, shape=SHAPE, metrics=["orientation"])
    assert all(entry.error for entry in refused.entries)
    assert draw(refused, tmp_path) == ()


def test_missing_stimuli_are_named_and_fatal_only_if_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TDSNN_DATA", raising=False)
    category = next(name for name in METRICS.names() if METRICS.load(name).stimuli == "floc")
    models, sheets = {"ordered": Oriented()}, {"energy": sheet(ordered=True)}
    with pytest.raises(MissingError, match="floc"):
        survey(models, sheets, shape=SHAPE, metrics=[category])
    found = survey(models, sheets, shape=SHAPE)
    assert "TDSNN_DATA" in found.missing["floc"]
    assert found.shown == {"gratings": 320}


def test_bad_requests_are_refused() -> None:
    models, sheets = {"ordered": Oriented()}, {"energy": sheet(ordered=True)}
    with pytest.raises(UsageError, match="orientation"):
        survey(models, sheets, shape=SHAPE, metrics=["orientaton"])
    with pytest.raises(UsageError, match="at least one"):
        survey({}, sheets, shape=SHAPE)


def test_the_control_moves_units_and_keeps_places() -> None:
    plain = sheet(ordered=True)
    moved = shuffle(plain, seed=1)
    assert not torch.equal(moved.positions, plain.positions)
    assert sorted(moved.positions.tolist()) == sorted(plain.positions.tolist())


def stimuli(images: Tensor) -> StimulusSet:
    return StimulusSet(name="any", images=images, factors={}, levels={})


@pytest.mark.parametrize(
    ("layer", "output", "shape"),
    [
        ("vector", (5,), (5, 1, 1)),
        ("tokens", (9, 5), (5, 3, 3)),
        ("maps", (5, 3, 2), (5, 3, 2)),
    ],
)
def test_layers_of_any_form_become_units(layer: str, output: tuple[int, ...], shape: tuple[int, ...]) -> None:
    values = torch.rand(4, *output)

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = 0
            self.add_module(layer, nn.Identity())

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.get_submodule(layer)(values[self.start : self.start + len(images)])
            self.start += len(images)
            return out

    answers = record_responses(Fixed(), stimuli(torch.rand(4, 1, 2, 2)), [layer], batch_size=3)[layer]
    assert answers.shape == shape
    expected = values.transpose(1, 2) if layer == "tokens" else values
    assert torch.equal(answers.rates, expected.flatten(1))


def test_layers_that_are_no_units_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scalar = nn.Identity()
            self.nan = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.scalar(images.sum())
            self.nan(images * torch.nan)
            return out

    shown = stimuli(torch.rand(2, 1, 2, 2))
    with pytest.raises(UsageError, match=r"scalar.*no units"):
        record_responses(Odd(), shown, ["scalar"])
    with pytest.raises(UsageError, match="Did you mean scalar"):
        record_responses(Odd(), shown, ["scalr"])
    with pytest.raises(GateError, match="not finite"):
        record_responses(Odd(), shown, ["nan"])


@pytest.mark.data
def test_floc_is_reduced_to_the_size_of_the_input() -> None:
    try:
        shown = floc((3, 32, 32))
    except MissingError as error:
        pytest.skip(error.message)
    assert shown.images.shape == (1440, 3, 32, 32)
    assert torch.equal(shown.factors["category"].bincount(), torch.full((5,), 288))
    assert torch.equal(shown.factors["subcategory"].bincount(), torch.full((10,), 144))
    assert 0 <= float(shown.images.min()) < float(shown.images.max()) <= 1


def test_every_metric_names_a_stimulus_set() -> None:
    assert {METRICS.load(name).stimuli for name in METRICS.names()} <= set(STIMULI)
