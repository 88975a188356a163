"""Damages files and answers of every kind and reads them: ``python -m tests.fuzz --seconds 60 [--seed N]``.

Whatever is in a file, or in what a Hub answers, reading it ends with what was written or with one sentence
(a TdsnnError), within seconds. Kinds whose content has a digest must never give anything else than what was
written.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import set_client_factory
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses
from huggingface_hub.utils._http import default_client_factory

from tdsnn import manifest
from tdsnn.benchmark.suites import read_suite
from tdsnn.data._arrays import open_array
from tdsnn.data._formats import read_idx, read_parquet
from tdsnn.data._pictures import decode
from tdsnn.errors import TdsnnError
from tdsnn.hub.repository import Reference, look_up
from tdsnn.models._checkpoint import read_model
from tdsnn.models.sresnet18 import sresnet18
from tdsnn.progress import silent
from tdsnn.result_folder import ResultFolder, Scores
from tdsnn.schema import FileRecord, Release
from tdsnn.sweep.plan import read_sweep
from tdsnn.training import state as states

LONGEST_S = 10.0
"""For one file of a few kilobytes."""
SHAPE = (3, 8, 6)
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    2.5,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "../x",
    "[/b]\x1b[31m\n",
    [],
    [3],
    {},
    {"a": 1},
)
"""Values that are somewhere of the wrong type, out of range, or markup."""


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        path: the file, as it was written.
        read: reads it.
        sealed: whether its content has a digest, so that only what was written may be read.
    """

    path: Path
    read: Callable[[], object]
    sealed: bool = False


def damaged(content: bytes, draws: np.random.Generator) -> bytes:
    """With bytes changed, cut off, put in or doubled; of JSON also with another value in one place."""
    if content[:1] == b"{" and draws.random() < 0.4:
        return _with_another_value(content, draws)
    altered = bytearray(content)
    for _ in range(int(draws.integers(1, 4))):
        place = draws.integers(len(altered))
        # Texts often stay texts if the lowest bits change.
        altered[place] = (
            draws.integers(256) if draws.random() < 0.3 else altered[place] ^ 1 << draws.integers(4)
        )
    way, place = draws.random(), int(draws.integers(len(altered)))
    if way < 0.2:
        return bytes(altered[:place])
    if way < 0.3:
        return bytes(altered[:place]) + draws.bytes(int(draws.integers(1, 9))) + bytes(altered[place:])
    return bytes(altered) * 2 if way < 0.33 else bytes(altered)


def _with_another_value(content: bytes, draws: np.random.Generator) -> bytes:
    document = json.loads(content)
    places: list[tuple[Any, Any]] = []
    inside = [document]
    while inside:
        one = inside.pop()
        for key, part in one.items() if isinstance(one, dict) else enumerate(one):
            places.append((one, key))
            inside += [part] if isinstance(part, dict | list) else []
    where, key = places[draws.integers(len(places))]
    where[key] = HOSTILE[draws.integers(len(HOSTILE))]
    return json.dumps(document).encode()


def kinds(folder: Path) -> Mapping[str, Kind]:
    """One good file of each kind below a folder."""
    found = {**_documents(folder), **_of_runs(folder), **_of_data(folder), **_of_hub(folder)}
    model = sresnet18(width=2, timesteps=1, in_channels=1, mean=(0.5,), std=(0.5,))
    model.save_pretrained(folder / "model", dataset="digits")
    for name, sealed in (("model.safetensors", True), ("config.json", True)):
        path = folder / "model" / name
        found[f"checkpoint: {name}"] = Kind(path, lambda: _weights(folder / "model"), sealed)
    return found


def _weights(folder: Path) -> object:
    model, _ = read_model(folder)
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def _documents(folder: Path) -> dict[str, Kind]:
    lab = folder / "zoo"
    (lab / "models").mkdir(parents=True)
    os.environ["TDSNN_ZOO"] = str(lab)
    entry = lab / "models" / "net.digits.toml"
    text = manifest.manifest_path("tsresnet18.fashion_mnist").read_text(encoding="utf-8")
    entry.write_text(text.replace('name = "fashion_mnist"', 'name = "digits"'))
    record = FileRecord(path="model.safetensors", size=3, sha256="0" * 64)
    metric = {"value": 90.0, "unit": "%", "n": 100}
    release = Release(name="net.digits", files=(record,), metrics={"clean_accuracy": metric}, provenance={})
    suite, sweep = folder / "suite.toml", folder / "sweep.toml"
    suite.write_text('summary = "One."\nn = 5\neps = [1, "8/255"]\n[[attacks]]\nattack = "pgd:steps=3"\n')
    sweep.write_text('summary = "One."\n[[runs]]\nentry = "sresnet18.fashion_mnist"\nseeds = [0, 1]\n')
    return {
        "manifest": Kind(entry, lambda: manifest.resolve("net.digits")),
        "release": Kind(manifest.write_release(release), lambda: manifest.load_release("net.digits")),
        "suite": Kind(suite, lambda: read_suite(suite)),
        "sweep": Kind(sweep, lambda: read_sweep(sweep, folder=folder / "runs")),
    }


def _of_runs(folder: Path) -> dict[str, Kind]:
    run, results = folder / "run", ResultFolder(folder / "bench")
    run.mkdir()
    states.save_state(run, {"position": {"step": 3}, "weights": torch.arange(40.0)})
    states.write_settings(run, manifest.resolve("sresnet18.fashion_mnist"))
    environment: dict[str, Any] = {"threads": 1}
    outcome = states.Outcome(name="a.b", n=3, data_digests={"train": "0" * 64}, environment=environment)
    states.write_outcome(run, outcome)
    right = np.array([True, False, True, True])
    results.write_cell("cell", Scores(values=right, seconds=1.0, gates=({"name": "bounds"},)))
    results.write_document("report", {"findings": [1.5, "a"]})
    results.write_measurement("metric", {"value": 0.5}, {"samples": right})
    cells = results.folder / "cells"
    return {
        "training state": Kind(run / states.STATE, lambda: repr(states.load_state(run)), True),
        "settings of a run": Kind(run / states.SETTINGS, lambda: states.read_settings(run)),
        "outcome of a run": Kind(run / states.OUTCOME, lambda: states.read_outcome(run)),
        "cell": Kind(
            cells / "cell.safetensors", lambda: repr(results.read_cell("cell", 4, batch_size=2)), True
        ),
        "masking report": Kind(cells / "report.json", lambda: results.read_document("report"), True),
        "time metric": Kind(
            cells / "metric.safetensors", lambda: repr(results.read_measurement("metric")), True
        ),
    }


def _of_data(folder: Path) -> dict[str, Kind]:
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    pixels = np.random.default_rng(0).integers(0, 256, (*SHAPE[1:], 3), dtype=np.uint8)
    found = {}
    for form in ("png", "jpeg", "webp"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format=form)
        path = folder / f"picture.{form}"
        path.write_bytes(stream.getvalue())
        found[f"picture: {form}"] = Kind(path, lambda path=path: decode(path, name=str(path)))  # type: ignore[misc]
    table = folder / "test.parquet"
    images = [{"bytes": (folder / "picture.png").read_bytes()}] * 3
    parquet.write_table(pa.table({"image": images, "label": [0, 1, 2]}), table)
    array, idx, labels = folder / "x.npy", folder / "x.gz", folder / "y.gz"
    np.save(array, np.arange(12).reshape(3, 4))
    idx.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 4, 4) + bytes(32)))
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes(2)))
    return found | {
        "parquet": Kind(
            table, lambda: read_parquet(table, image="image", label="label", shape=SHAPE, progress=silent)
        ),
        "array": Kind(array, lambda: open_array(array)),
        "idx": Kind(idx, lambda: read_idx(idx, labels, shape=(1, 4, 4))),
    }


def _of_hub(folder: Path) -> dict[str, Kind]:
    """Answers of a Hub to the question what a repository holds, with status 200 and as an error."""
    repository, error = folder / "repository.json", folder / "error.json"
    large = {"sha256": "1" * 64, "size": 3, "pointerSize": 130}
    small = {"rfilename": "config.json", "size": 3, "blobId": "2" * 40}
    siblings = [small, {"rfilename": "model.safetensors", "size": 3, "blobId": "3" * 40, "lfs": large}]
    about = {"id": "a/b", "modelId": "a/b", "sha": "4" * 40, "private": False, "siblings": siblings}
    repository.write_text(json.dumps({**about, "tags": ["x"], "lastModified": "2026-01-01T00:00:00.000Z"}))
    error.write_text(json.dumps({"error": "It is being moved.", "errors": [{"message": "Wait."}]}))
    return {
        "answer: repository": Kind(repository, lambda: _answered(repository, 200)),
        "answer: error": Kind(error, lambda: _answered(error, 500)),
    }


def _answered(body: Path, status: int) -> object:
    """What is made of a Hub that answers every request with this."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body.read_bytes())

    set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(answer)))
    try:
        return look_up(Reference(repo="a/b"))
    finally:
        set_client_factory(default_client_factory)


@dataclass
class Report:
    """What came out."""

    cases: Counter[str]
    refused: Counter[str]
    faults: list[str]


def fuzz(*, seconds: float, seed: int, most: int = 10**9) -> Report:
    """Damage file after file until the time is over."""
    report, draws = Report(Counter(), Counter(), []), np.random.default_rng(seed)
    before = os.environ.get("TDSNN_ZOO")
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = kinds(Path(folder))
            written = {name: kind.read() for name, kind in files.items() if kind.sealed}
            end = time.monotonic() + seconds
            while time.monotonic() < end and report.cases.total() < most:
                for name, kind in files.items():
                    _try(name, kind, written.get(name), draws, report)
    finally:
        if before is None:
            os.environ.pop("TDSNN_ZOO", None)
        else:
            os.environ["TDSNN_ZOO"] = before
    return report


def _try(name: str, kind: Kind, written: object, draws: np.random.Generator, report: Report) -> None:
    content = kind.path.read_bytes()
    altered = damaged(content, draws)
    kind.path.write_bytes(altered)
    report.cases[name] += 1
    started = time.monotonic()
    try:
        found = kind.read()
        if kind.sealed and found != written:
            report.faults.append(f"{name}: altered content was accepted: {altered[:500]!r}")
    except TdsnnError:
        report.refused[name] += 1
    except Exception:  # noqa: BLE001  # each is a fault to be reported
        report.faults.append(f"{name}: {traceback.format_exc()}\n{altered[:500]!r}")
    if time.monotonic() - started > LONGEST_S:
        report.faults.append(f"{name}: took more than {LONGEST_S:.0f} s: {altered[:500]!r}")
    kind.path.write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = fuzz(seconds=options.seconds, seed=options.seed)
    for name, count in report.cases.items():
        sys.stdout.write(f"{name:28} {count:7,} cases, {report.refused[name]:7,} refused\n")
    sys.stdout.write(f"{report.cases.total():,} cases, {len(report.faults)} faults\n")
    sys.stdout.write("\n".join(report.faults[:5]) + "\n" if report.faults else "")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
