"""The examples of other people's networks, benchmarked from the command line as their docstrings say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from command import run

from tdsnn.data._base import load_split
from tdsnn.errors import MissingError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "shape"), [("spikingjelly_net", (3, 32, 32)), ("snntorch_net", (1, 28, 28))]
)
def test_a_network_that_knows_nothing_of_this_project_is_benchmarked(
    name: str,
    shape: tuple[int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip({"spikingjelly_net": "spikingjelly", "snntorch_net": "snntorch"}[name])
    monkeypatch.chdir(EXAMPLES.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    draws = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", draws.integers(0, 256, (4, *shape), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(4))
    data = f"{tmp_path / 'images.npy'},{tmp_path / 'labels.npy'}"
    command = (
        "bench",
        f"examples.{name}:network",
        "--data",
        data,
        "--n",
        "4",
        "--out",
        str(tmp_path / "out"),
    )
    assert run(*command, "--attack", "sapgd:steps=2,surrogate=assg", "--eps", "8") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"examples.{name}:network" in shown
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"tdsnn-zoo bench examples.{name}:network --data " in text
    assert len([line for line in text.splitlines() if line.strip()]) <= 24


def test_the_example_about_the_zoos_own_models(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        load_split("fashion_mnist", "test")
    except MissingError as error:
        pytest.skip(error.message)
    runpy.run_path(str(EXAMPLES / "spikes_and_sheets.py"))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 6
    assert shown[3].startswith("after step 4: 9")
    topographic, twin = (float(line.rpartition(" ")[2]) for line in shown[4:])
    assert topographic > twin
