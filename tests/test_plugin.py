"""A package outside of this project adds a model, an attack, two metrics and a dataset; all of it works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent
CONTRACTS = ("models", "stepping", "attacks", "metrics", "time_metrics", "datasets")
NAMES = ("lateral", "jitter", "neighbours", "silence", "bars")

USE = """
import json, torch, tdsnn
from tdsnn.data import load_split

spatial = ["topography.alpha=0.5", "topography.beta=0.5", "topography.clusters=2"]
outcome = tdsnn.train("lateral", device="cpu", run_dir="run", settings=spatial)
model = tdsnn.load(outcome.checkpoint)
images, labels = load_split("bars", "test").take(slice(0, 50))
attacks = ["jitter:tries=2", "pgd:steps=2"]
bench = tdsnn.bench(outcome.checkpoint, attacks=attacks, eps=[8, 64], metrics="silence", n=200)
steps = torch.stack(list(tdsnn.stream(model, images)))
survey = tdsnn.topo(outcome.checkpoint, metrics=["neighbours"], out="maps")
print(json.dumps({
    "held_out_accuracy": outcome.held_out_accuracy,
    "layouts": {layer: [sheet.layout, list(sheet.shape)] for layer, sheet in model.sheets.items()},
    "log": [json.loads(line) for line in open("run/log.jsonl")],
    "bench": bench.document(),
    "table": str(bench),
    "right_at_the_end": float((steps.mean(0).argmax(1) == labels).float().mean()),
    "steps_agree": bool(torch.allclose(steps, model.logits_over_time(images), atol=1e-5)),
    "mean_steps": float(tdsnn.early_exit(model, images, margin=0.5).steps.float().mean()),
    "survey": survey.document(),
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--target", str(folder), str(TESTS / "plugin")]
    subprocess.run([*pip, *options], check=True, capture_output=True)
    return folder


def python(site: Path, folder: Path, *arguments: str) -> str:
    """Standard output of an interpreter that finds the package."""
    environment = os.environ | {"PYTHONPATH": str(site), "TDSNN_ZOO": str(site / "tdsnn_example" / "zoo")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_parts_keep_the_contracts(site: Path, tmp_path: Path) -> None:
    files = [str(TESTS / "contract" / f"test_{contract}.py") for contract in CONTRACTS]
    chosen = ["-k", " or ".join(f"[{name}" for name in NAMES), "-p", "no:cacheprovider", "-rA"]
    options = ["-p", "no:xdist", "--rootdir", str(TESTS.parent), "-c", str(TESTS.parent / "pyproject.toml")]
    report = python(site, tmp_path, "-m", "pytest", *options, *chosen, *files)
    for name in NAMES:
        passed = re.findall(rf"^PASSED .*\b{name}\b.*", report, re.MULTILINE)
        assert len(passed) >= 6, (name, report)
    assert "SKIPPED" not in report


def test_it_trains_benches_streams_and_maps(site: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(python(site, tmp_path, "-c", USE))
    assert found["held_out_accuracy"] > 0.8, "half of the answers are right by chance"
    assert found["right_at_the_end"] > 0.8
    assert found["layouts"] == {"hidden": ["tokens", [8, 8, 8]]}
    assert 0 < found["log"][-1]["L_L"] < 0.5, "places at random give a half"
    assert found["steps_agree"]
    assert 1 <= found["mean_steps"] <= 4
    cells = {(cell["attack"], cell["eps_255"]): cell["accuracy"]["value"] for cell in found["bench"]["cells"]}
    assert cells["clean", 0.0] > 80
    assert cells["pgd", 64.0] < cells["jitter", 64.0] <= cells["jitter", 8.0] <= cells["clean", 0.0]
    assert "jitter:tries=2 eps 64" in found["table"]
    (record,) = found["bench"]["measurements"]
    assert 0 < record["figures"]["silent@hidden"]["value"] < 100
    assert "silent@hidden" in found["table"]
    subjects = {row["subject"]: row["figures"] for row in found["survey"]["entries"]}
    own, shuffled = (subjects[name] for name in found["survey"]["subjects"])
    assert {row["layer"] for row in found["survey"]["entries"]} == {"hidden"}
    assert own["correlation"]["n"] > 100
    # The metric's own control is the survey's: the same units with their places exchanged.
    assert own["shuffled"]["low"] < shuffled["correlation"]["high"]
    assert shuffled["correlation"]["low"] < own["shuffled"]["high"]
    assert (tmp_path / "maps" / "survey.json").is_file()
