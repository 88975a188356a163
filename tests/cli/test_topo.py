"""``topo`` by exit code and output, on a small network with a checkpoint folder of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsnn import zoo
from tdsnn.cli._sheet_view import sheet_view
from tdsnn.cli.main import main
from tdsnn.metrics._base import UnitMap
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import build_sheets
from tests.networks import network
from tests.second_device import second_device

LAYER = "layer1.0"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["topo", *arguments])
    code = caught.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = network("sresnet18", in_channels=1, mean=[0.5], std=[0.3])
    shape = {LAYER: (8, 8, 8)}
    model.sheets = build_sheets(shape, [SheetSpec(LAYER, 2.4)], seed=0)
    zoo.save(model, tmp_path / "mine", name="mine", dataset="digits")
    return tmp_path / "mine"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_is_surveyed(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "maps"
    found = answer(capsys, str(checkpoint), "--metric", "orientation", "--out", str(out))
    assert found["subjects"] == ["mine", "positions shuffled"]
    assert found["sheets"][LAYER]["preparation"] == "retinotopic"
    assert json.loads((out / "survey.json").read_text(encoding="utf-8")) == found


def test_the_summary_has_a_row_for_each_metric_and_the_rest_on_request(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ("--metric", "correlation_distance", "--metric", "colour")
    assert run(str(checkpoint), *metrics, "--out", str(tmp_path / "maps")) == 0
    shown = capsys.readouterr()
    assert re.search(r"correlation distance .* decay .* 1 of 1", shown.out)
    assert "correlation distance: Correlation of responses against" in shown.out
    assert "positions shuffled" in shown.out
    assert "colour refused in all layers: The gratings shown to" in shown.err
    assert "--full, and in tables.txt" in shown.err
    assert "[" not in shown.out, "intervals are in the full tables"
    full = (tmp_path / "maps" / "tables.txt").read_text(encoding="utf-8")
    assert re.search(rf"{LAYER} +decay +[\d.e-]+ \[", full)
    assert "have one colour only" in full
    assert run(str(checkpoint), *metrics, "--full") == 0
    assert re.search(rf"{LAYER} .* decay .*\[", capsys.readouterr().out)


def test_the_maps_of_another_model_are_left_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "survey.json").write_text(json.dumps({"subjects": ["theirs", "positions shuffled"]}))
    assert run(str(checkpoint), "--metric", "orientation", "--out", str(tmp_path)) == 2
    assert f"'{tmp_path}' has the maps of theirs." in capsys.readouterr().err
    (tmp_path / "survey.json").write_text("{")
    assert run(str(checkpoint), "--metric", "orientation", "--out", str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--layers", "layer1.1"), "no layer with a sheet called 'layer1.1'"),
        (("--metric", "orientaton"), "Did you mean orientation"),
    ],
)
def test_unknown_names_are_a_usage_error(
    arguments: tuple[str, str], words: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(checkpoint), *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_model_without_sheets_is_offered_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network("sresnet18", in_channels=1, mean=[0.5], std=[0.3])
    folder = tmp_path / "bare"
    zoo.save(model, folder, name="bare", dataset="digits")
    assert run(str(folder)) == 2
    assert "--fresh-sheets" in capsys.readouterr().err
    found = answer(capsys, str(folder), "--fresh-sheets", "--layers", LAYER, "--metric", "orientation")
    assert list(found["sheets"]) == [LAYER]


def test_topo_show_is_the_long_form(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = answer(capsys, str(checkpoint), "--metric", "orientation")
    assert answer(capsys, "show", str(checkpoint), "--metric", "orientation") == short


def test_optimise_writes_a_checkpoint_with_the_same_weights(
    checkpoint: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sorted"
    logs = answer(capsys, "optimise", str(checkpoint), "--out", str(out), "--attempts-per-unit", "5")
    before, after = zoo.load(checkpoint), zoo.load(out)
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())
    assert after.sheets[LAYER].preparation == "pre-optimised"
    (_, first), *_, (_, last) = logs[LAYER]["alignment"]
    assert last > first
    assert run("optimise", str(checkpoint), "--out", str(out), "--attempts-per-unit", "5", "--force") == 0
    assert "r before" in capsys.readouterr().out
    # Saved searches are not run again, so the second sheet is the first.
    assert torch.equal(zoo.load(out).sheets[LAYER].positions, after.sheets[LAYER].positions)


def test_optimise_replaces_no_other_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert run("optimise", str(checkpoint), "--out", str(checkpoint), "--attempts-per-unit", "5") == 2
    assert f"'{checkpoint}' is not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


@pytest.mark.parametrize("words", [("show",), ("optimise",)])
def test_a_place_that_can_be_no_folder_is_refused_before_anything_is_measured(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    config = checkpoint / "config.json"
    assert run(*words, str(checkpoint), "--out", str(config / "maps")) == 2
    assert f"'{config}' is no folder" in " ".join(capsys.readouterr().err.split())


def test_a_search_without_attempts_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("optimise", str(checkpoint), "--out", str(tmp_path / "x"), "--attempts-per-unit", "0")
    assert run(*arguments) == 2
    assert "0.01" in capsys.readouterr().err


def test_the_view_shows_hue_where_neighbours_agree_and_grey_where_not() -> None:
    places = torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0)) * 10
    left = places[:, 0] < 5
    values = torch.where(left, torch.tensor(0.0), torch.arange(40_000.0) * 45 % 180)
    unit_map = UnitMap(
        kind="cyclic", values=values, strength=torch.ones(40_000), label="orientation (degrees)"
    )
    lines = sheet_view(unit_map, places.numpy())
    assert len(lines) == 18
    assert {len(line.plain) for line in lines} == {36}
    agreeing, mixed = ([str(line.spans[at].style).split()[0] for line in lines] for at in (2, 30))
    assert set(agreeing) == {"#f20000"}
    assert max(_saturation(colour) for colour in mixed) < 0.6


def _saturation(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (max(channels) - min(channels)) / max(channels)


def test_it_runs_on_the_device_that_was_asked_for(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = answer(capsys, str(checkpoint), "--metric", "orientation", "--device", "cpu")
    with second_device(1):
        there = answer(capsys, str(checkpoint), "--metric", "orientation", "--device", "cuda:1")
    assert there["environment"]["device"] == "cuda:1"
    assert there["entries"] == here["entries"]
    for command in ([], ["optimise", "--out", "never"]):
        assert run(*command, str(checkpoint), "--device", "cuda:9") == 2
    assert "'cuda:9' is not on this machine" in capsys.readouterr().err
