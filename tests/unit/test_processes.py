"""Several processes, as torchrun starts them, give what one gives."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import N, numbers, torchrun, write_toy_suite
from safetensors.numpy import load_file

from tdsnn.benchmark.api import prepare
from tdsnn.errors import UsageError
from tdsnn.processes import ALONE, launcher, own_device, usable_cores

WORK = """
import json, sys
from pathlib import Path

import torch

from tdsnn.errors import GateError
from tdsnn.processes import team


def refuse(item):
    if item == 3:
        raise GateError(f"no {item}")


def exhaust(item):
    if item == 3:
        raise torch.OutOfMemoryError("CUDA out of memory.")


with team() as together:
    answer = {
        "shared": together.shared(range(5), lambda item: (item, together.rank)),
        "once": together.once(lambda: together.rank),
    }
    try:
        together.shared(range(5), refuse)
    except GateError as error:
        answer["refused"] = error.message
    try:
        together.shared(range(5), exhaust)
    except torch.OutOfMemoryError as error:
        answer["exhausted"] = str(error)
    answer["any"] = [together.any(together.rank == 1), together.any(False)]
    answer["means"] = together.means({"a": 1.0 + together.rank, "b": float("nan") if together.rank else 0.0})
    Path(sys.argv[1], f"{together.rank}.json").write_text(json.dumps(answer))
"""


def test_each_item_is_computed_once_and_an_error_is_everyones(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    done = torchrun(tmp_path, "work.py", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert math.isnan(first["means"].pop("b"))
    assert math.isnan(second["means"].pop("b"))
    assert first == second
    assert first["shared"] == [[0, 0], [1, 1], [2, 0], [3, 1], [4, 0]]
    assert first["once"] == 0
    assert first["refused"] == "no 3"
    assert first["exhausted"] == "CUDA out of memory."
    assert first["any"] == [True, False]
    assert first["means"] == {"a": 1.5}


def test_two_processes_give_the_verdicts_of_one_and_go_on_where_one_stopped(tmp_path: Path) -> None:
    data, suite = write_toy_suite(tmp_path)
    alone = prepare(["toys:Linear"], data=data, suite=suite, out=tmp_path / "alone", device="cpu").run()
    words = ["-m", "tdsnn", "bench", "toys:Linear", f"--data={data}", f"--suite={suite}"]
    words += [f"--images={N}", "--device=cpu", f"--out={tmp_path / 'two'}", "--json"]
    done = torchrun(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["provenance"]["processes"] == 2
    assert numbers(document) == numbers(json.loads(json.dumps(alone.document())))
    assert done.stderr.count("Result: ") == 1, "only the main process reports"
    ours, theirs = (load_file(tmp_path / folder / "samples.safetensors") for folder in ("alone", "two"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    again = prepare(["toys:Linear"], data=data, suite=suite, out=tmp_path / "two", device="cpu").run()
    assert len(again.provenance["reused_cells"]) == 4, "what two processes stored, one goes on from"


def test_a_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device(cuda) == cuda
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(cuda) == torch.device("cuda:1")
    assert own_device(torch.device("cuda:0")) == torch.device("cuda:0"), "as it was asked for"
    assert own_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="no GPU of its own"):
        own_device(cuda)


def test_one_process_alone_needs_nobody() -> None:
    assert ALONE.once(lambda: 3) == 3
    assert ALONE.shared([1, 2], lambda item: item + 1) == [2, 3]


def test_a_command_goes_on_in_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launcher() == ["tdsnn-zoo"]
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert launcher() == ["torchrun", "--nproc-per-node=8", "-m", "tdsnn"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launcher() == ["torchrun", "--nnodes=2", "--nproc-per-node=4", "-m", "tdsnn"]


def test_cores_are_counted_where_no_process_can_be_tied_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
