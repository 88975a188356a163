"""Freed memory that stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tdsnn.kernels.memory import keep_freed_memory

_COUNT_FAULTS = """
import resource, torch
from tdsnn.kernels.memory import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults(4)
kept = keep_freed_memory()
faults(16)  # the heap grows to what it needs
print(kept, without, faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_tensors_find_their_pages_again() -> None:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS], capture_output=True, text=True, check=True)
    kept, without, with_it = done.stdout.split()
    assert kept == "True"
    assert int(with_it) < int(without) / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert not keep_freed_memory.__wrapped__()
