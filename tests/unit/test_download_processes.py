"""Downloads by several processes, some of which are killed or refused by the system."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hub_server import Fault, HubServer

NAME = "model.safetensors"
CONTENT = hashlib.shake_128(b"weights").digest(300_000)

DOWNLOAD = f"""
import sys
from pathlib import Path
from tdsnn import hub
from tdsnn.files import exclusive
from tdsnn.schema import FileRecord
target = Path(sys.argv[2])
record = FileRecord(path={NAME!r}, size=int(sys.argv[3]), sha256=sys.argv[4])
with exclusive(target.parent):
    if not target.exists():
        hub.fetch_file("someone/net", hub.RemoteFile.of(record), commit=sys.argv[1], target=target)
"""


def start(commit: str, target: Path, *, before: str = "") -> subprocess.Popen[bytes]:
    arguments = [commit, str(target), str(len(CONTENT)), hashlib.sha256(CONTENT).hexdigest()]
    code = [sys.executable, "-c", before + DOWNLOAD, *arguments]
    return subprocess.Popen(code, env=os.environ | {"HF_HUB_OFFLINE": "0"}, stderr=subprocess.PIPE)


def wait_for_part(folder: Path) -> Path:
    """The partial file, once there is something in it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for part in folder.glob(".*.part"):
            if part.stat().st_size:
                return part
        time.sleep(0.01)
    raise AssertionError("nothing arrived in a minute")


def test_a_killed_process_is_gone_on_with(hub_server: HubServer, tmp_path: Path) -> None:
    commit, target = hub_server.add("someone/net", {NAME: CONTENT}), tmp_path / "to" / NAME
    hub_server.misbehave(Fault.stall(200_000, 30), on="^GET .*/resolve/")
    process = start(commit, target)
    part = wait_for_part(target.parent)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    kept = part.stat().st_size
    assert start(commit, target).wait(60) == 0
    assert target.read_bytes() == CONTENT
    assert hub_server.ranges()[-1] == f"bytes={kept}-"


def test_a_disk_that_refuses_in_the_middle(hub_server: HubServer, tmp_path: Path) -> None:
    """The system refuses to let the file grow; what is there is kept and gone on with."""
    commit, target = hub_server.add("someone/net", {NAME: CONTENT}), tmp_path / "to" / NAME
    small = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    small += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    process = start(commit, target, before=small)
    assert process.wait(60) == 1
    assert b"could not be written: File too large" in (process.stderr.read() if process.stderr else b"")
    assert not target.exists()
    assert start(commit, target).wait(60) == 0
    assert target.read_bytes() == CONTENT
    assert hub_server.ranges()[-1].startswith("bytes=")


def test_two_processes_at_once(hub_server: HubServer, tmp_path: Path) -> None:
    commit, target = hub_server.add("someone/net", {NAME: CONTENT}), tmp_path / "to" / NAME
    processes = [start(commit, target) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert len(hub_server.ranges()) == 1, "the second waited for the first and found the file"
