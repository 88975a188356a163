"""Work shared by processes, and waiting for what another one does, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from toys import Linear, batch

N, BATCH = 30, 4
SUITE = f"""
summary = "Attacks on all and on survivors, and every test for masked gradients."
n = {N}
batch_size = {BATCH}
eps = [1, "8/255"]
[[attacks]]
attack = "pgd:steps=3"
[[attacks]]
attack = "square:queries=20,eps=8/255"
on = "survivors"
[masking]
images = 4
steps = 3
points = 3
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a script or module, which find what tests do."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    variables = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*words, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=240
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as the process has made the file, which it must do within two minutes."""
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert path.exists(), process.communicate()


def write_toy_suite(folder: Path) -> tuple[str, Path]:
    """Test images for ``toys:Linear``, as ``--data`` takes them, and a suite."""
    x, y = batch(Linear(), N)
    np.save(folder / "x.npy", (255 * x).byte().numpy())
    np.save(folder / "y.npy", y.numpy())
    (folder / "suite.toml").write_text(SUITE)
    return f"{folder / 'x.npy'},{folder / 'y.npy'}", folder / "suite.toml"


def numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """What must not depend on who computed it: all but the provenance, and the keys, which know machines."""
    cells = [{name: value for name, value in cell.items() if name != "key"} for cell in document["cells"]]
    return {name: value for name, value in document.items() if name != "provenance"} | {"cells": cells}
