"""``report sweep`` by exit code, output and files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run
from sweep_documents import TWIN, group, record, write

from tdsnn import paths

PLAIN = {0: 9160, 1: 9175, 2: 9150}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two groups, one of them with one seed and a silent layer."""
    lone = record("weak", 9170, rates=(0.1, None), smooth=(0.3, 0.5), settings=["topography.alpha=0.1"])
    return write(tmp_path / "results.json", group("plain", PLAIN, entry=TWIN), [lone])


def test_the_table_has_a_row_for_each_group(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "sweep", str(path)) == 0
    text = capsys.readouterr().out
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert rows.keys() == {"plain", "weak"}
    assert "baseline" in rows["plain"]
    assert "Wilson" not in rows["plain"]
    assert "91.70 [91.14, 92.22] Wilson" in rows["weak"]
    assert "+0.10" in rows["weak"]
    for part in ("n = 10,000 held-out images", "without layer4.1", "left out: 1, 2", "smoothness"):
        assert part in text


def test_json_and_both_figures(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg, png = tmp_path / "out" / "a.svg", tmp_path / "out" / "a.png"
    assert run("report", "sweep", str(path), "--plot", str(svg), "--plot", str(png), "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["schema"], document["sweep"], document["baseline"]) == (1, "strengths", "plain")
    assert [one["name"] for one in document["groups"]] == ["plain", "weak"]
    assert document["groups"][1]["difference"]["mean"]["value"] == pytest.approx(0.1)
    assert svg.read_bytes().startswith(b"<?xml")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert str(svg) in err
    assert str(png) in err


def test_official_documents_have_names(
    project: Path, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("report", "sweep", "strengths") == 4
    assert "There is no official document" in capsys.readouterr().err
    checkout = Path(paths.__file__).resolve().parents[1]
    shutil.copytree(checkout / "zoo" / "models", project / "zoo" / "models", dirs_exist_ok=True)
    official = project / "benchmarks" / "results" / "sweeps" / "strengths.json"
    official.parent.mkdir(parents=True)
    shutil.copy(path, official)
    assert run("report", "sweep", "strengths", "--baseline", "weak") == 0
    capsys.readouterr()
    assert run("report", "sweep", "strength") == 2
    assert "called 'strength'. Did you mean strengths?" in capsys.readouterr().err
    assert run("report", "sweep", "strength.json") == 2
    assert "There is no file 'strength.json'." in capsys.readouterr().err
    # A file in the working directory needs no folder.
    monkeypatch.chdir(official.parent)
    assert run("report", "sweep", "strengths.json") == 0


def test_an_unknown_baseline_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "sweep", str(path), "--baseline", "plane") == 2
    err = capsys.readouterr().err
    assert "There is no group in this sweep called 'plane'. Did you mean plain?" in err
    assert "Known: plain, weak" in err


def _drop(key: str) -> Callable[[Any], Any]:
    return lambda document: {name: value for name, value in document.items() if name != key}


def _in_run(**changes: Any) -> Callable[[Any], Any]:
    return lambda document: {**document, "runs": [{**document["runs"][0], **changes}]}


def _accuracy(value: float, low: float, high: float, *, n: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "unit": "%", "n": n, "method": ""}


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: [],
        lambda document: "text",
        lambda document: {**document, "schema": 2},
        lambda document: {"schema": 1, "settings": {}, "cells": []},
        _drop("sweep"),
        _drop("runs"),
        lambda document: {**document, "runs": []},
        lambda document: {**document, "runs": [None]},
        lambda document: {**document, "runs": document["runs"] * 2},
        _in_run(seed="0"),
        _in_run(seed=True),
        _in_run(seed=-1),
        _in_run(label=None, entry=None),
        _in_run(label="[red]"),
        _in_run(label="$x$"),
        _in_run(held_out_accuracy={"value": 91.0}),
        _in_run(held_out_accuracy=_accuracy(191, 190, 192, n=5)),
        _in_run(held_out_accuracy=_accuracy(91, 92, 93, n=5)),
        _in_run(held_out_accuracy=_accuracy(91, 90, 92, n=0)),
        _in_run(alignment={}),
        _in_run(alignment={"rate": {"layer1.0": float("nan")}}),
        _in_run(alignment={"rate": {"layer1.0": "0.1"}}),
        _in_run(category_smoothness={"layer1.0": None}),
        _in_run(cpu_seconds=float("inf")),
        _in_run(settings=["topography.alpha=much"]),
        _in_run(settings=[1]),
        _in_run(settings=None),
    ],
)
def test_a_damaged_or_foreign_document_is_one_sentence(
    path: Path, damage: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    assert run("report", "sweep", str(path)) == 3
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: The result document '{path}' cannot be read: ")
    assert first.endswith(".")
    assert hint


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_one_sentence(
    path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(content)
    assert run("report", "sweep", str(path)) == 3
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "sweep", "--help") == 0
    text = capsys.readouterr().out
    assert "tdsnn-zoo report sweep runs/strengths/results.json" in text
    assert "--baseline" in text
