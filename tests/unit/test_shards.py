"""Parts of a benchmark, computed on machines that do not know of each other, give the result of one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run
from processes import BATCH, N, numbers, write_toy_suite
from safetensors.numpy import load_file
from timed import LABELS, ROWS, TwoUnits, split

from tdsnn.benchmark.api import Benchmark, prepare
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench, run_shard
from tdsnn.benchmark.shards import Shard, read_shard
from tdsnn.errors import UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.temporal import time_metrics

ATTACKS = 4
"""Cells of the suite on all images and on survivors, the one without attack among them."""


def in_folder(tmp_path: Path, out: str) -> Benchmark:
    data, suite = write_toy_suite(tmp_path)
    return prepare(["toys:Linear"], data=data, suite=suite, out=tmp_path / out, device="cpu")


def test_each_batch_is_in_one_part() -> None:
    parts = [read_shard(f"{index}/3").of(range(8)) for index in (1, 2, 3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"'{text}' names no part of a benchmark"):
        read_shard(text)


def test_parts_put_together_give_the_document_of_one_process(tmp_path: Path) -> None:
    alone = in_folder(tmp_path, "alone").run()
    for index in (1, 2, 3):
        part = in_folder(tmp_path, f"part-{index}")
        assert part.run_shard(Shard(index=index, count=3)) == []
        assert not (part.folder / "result.json").exists()
        shutil.copytree(part.folder / "cells", tmp_path / "all" / "cells", dirs_exist_ok=True)
    assert len(list((tmp_path / "all" / "cells").iterdir())) == ATTACKS * -(-N // BATCH)
    together = in_folder(tmp_path, "all").run()
    assert numbers(together.document()) == numbers(alone.document())
    assert [cell.key for cell in together.cells] == [cell.key for cell in alone.cells]
    ours, theirs = (load_file(tmp_path / folder / "samples.safetensors") for folder in ("alone", "all"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert sorted(together.provenance["resumed_cells"]) == sorted(together.provenance["cell_wall_s"])


def test_what_a_part_did_not_do_the_last_run_does(tmp_path: Path) -> None:
    alone = in_folder(tmp_path, "alone").run()
    part = in_folder(tmp_path, "some")
    part.run_shard(Shard(index=2, count=2))
    cells = sorted((part.folder / "cells").iterdir())
    again = [cell.stat().st_mtime_ns for cell in cells]
    cells[0].unlink()
    part.run_shard(Shard(index=2, count=2))
    assert cells[0].exists()
    assert [cell.stat().st_mtime_ns for cell in cells[1:]] == again[1:], "what is stored is not written again"
    together = in_folder(tmp_path, "some").run()
    assert numbers(together.document()) == numbers(alone.document())


def test_time_metrics_are_shared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.benchmark.measure.check_model", lambda *_, **__: [])
    network = TwoUnits(drive=1.0).eval()
    entries = [ModelEntry(name="one.toy", model=network, checkpoint_sha256="a" * 64, source="path")]
    plan = Plan(
        dataset="toy",
        split=split(ROWS, LABELS),
        n=len(ROWS),
        attacks=(),
        batch_size=3,
        metrics=time_metrics(["entropy:steps=6", "anytime"]),
    )
    alone = run_bench(plan, entries, ResultFolder(tmp_path / "alone"))
    folder = ResultFolder(tmp_path / "parts")
    for index in (1, 2):
        assert run_shard(plan, entries, folder, shard=Shard(index=index, count=2)) == []
    monkeypatch.setattr("tdsnn.temporal.entropy.Entropy.measure", None)
    monkeypatch.setattr("tdsnn.temporal.anytime.Anytime.measure", None)
    together = run_bench(plan, entries, folder)
    assert together.measurements == alone.measurements
    assert together.cells == alone.cells


def test_a_folder_that_is_a_file_or_not_ones_own_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file' is no folder"):
        in_folder(tmp_path, "file/x")
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.F_OK and os.path.lexists(path))
    with pytest.raises(UsageError, match="may not be written by you"):
        in_folder(tmp_path, "new/x")
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_gives_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, suite = write_toy_suite(tmp_path)
    asked = ("bench", "toys:Linear", "--data", data, "--suite", str(suite), "--out", str(tmp_path / "out"))
    asked = (*asked, "--device", "cpu", "--n", str(N))
    assert run(*asked, "--shard", "1/2", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"shard": "1/2", "folder": str(tmp_path / "out"), "failed": []}
    assert "when all parts are: tdsnn-zoo bench toys:Linear" in " ".join(err.split())
    assert run(*asked, "--shard", "3/2") == 2
    assert run(*asked, "--shard", "1/2", "--plot", str(tmp_path / "x.svg")) == 2
    assert "no result to draw" in capsys.readouterr().err
    monkeypatch.setattr("tdsnn.benchmark.measure.check_attack", _refuse)
    assert run(*asked, "--shard", "2/2") == 5
    assert "of the cells of part 2/2 have no number" in " ".join(capsys.readouterr().err.split())


def _refuse(*_: object, **__: object) -> None:
    from tdsnn.errors import GateError

    raise GateError("The ball was left.")
