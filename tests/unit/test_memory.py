"""Freed memory that stays with the process."""

from __future__ import annotations

import platform
import runpy
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tdsnn.kernels import memory
from tdsnn.kernels.memory import keep_freed_memory
from tdsnn.sweep.job import Job
from tdsnn.training.state import OUTCOME

_COUNT_FAULTS = """
import resource, torch
from tdsnn.kernels.memory import give_back_freed_memory, keep_freed_memory

def faults(times, size=16 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults(4)
kept = keep_freed_memory()
faults(16)  # the heap grows to what it needs
with_it = faults(4)
given_back = give_back_freed_memory()
# More than the heap has: kept, only the first of them would find no pages.
print(kept, without, with_it, given_back, faults(4, 32 * 2**20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_tensors_find_their_pages_again() -> None:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS], capture_output=True, text=True, check=True)
    kept, without, with_it, given_back, again = done.stdout.split()
    assert (kept, given_back) == ("True", "True")
    # Twice the pages, or 1.5 times where the first finds its own; half of them if they were kept.
    assert int(again) > int(without)
    assert int(with_it) < int(without) / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert not keep_freed_memory.__wrapped__()


def test_the_process_of_a_sweeps_run_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a command it belongs to the project; what ``tdsnn.train`` runs in may be anybody's."""
    (tmp_path / OUTCOME).touch()
    job = Job(
        entry="x", settings=[], folder=str(tmp_path), epochs=1, auxiliary=None, parent=0, digest="0" * 64
    )
    monkeypatch.setattr(sys, "argv", ["job", msgspec.json.encode(job).decode()])
    kept: list[int] = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: kept.append(1))
    with pytest.warns(RuntimeWarning, match="found in sys.modules"), pytest.raises(SystemExit) as ended:
        runpy.run_module("tdsnn.sweep.job", run_name="__main__")
    assert ended.value.code == 0, "the run is finished"
    assert kept
