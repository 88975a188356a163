"""Waiting for what another process does, for tests."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as the process has made the file, which it must do within two minutes."""
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert path.exists(), process.communicate()
