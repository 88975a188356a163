"""A Slurm cluster of one node on this machine, for tests: Debian's slurm-wlm and munge."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
_CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``SLURM_CONF`` of a cluster that is up; ends with the tests."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"needs Slurm (apt-get install slurm-wlm munge): no {', '.join(missing)}")
    if os.geteuid():
        pytest.skip("needs to be root: slurmd starts jobs of others")
    # Paths of sockets have at most 107 characters.
    folder = Path(tmp_path_factory.mktemp("s"))
    with ExitStack() as daemons:
        environment = os.environ | {"PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
        _configure(folder)
        sockets = [
            f"--{part}={folder}/munge.{part}" for part in ("socket", "key-file", "pid-file", "seed-file")
        ]
        munge = ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *sockets]
        daemons.enter_context(_daemon(munge, folder, environment))
        _until(lambda: (folder / "munge.socket").exists(), folder)
        daemons.enter_context(_daemon(["slurmctld", "-D", "-c"], folder, environment))
        daemons.enter_context(_daemon(["slurmd", "-D"], folder, environment))
        asked = ["sinfo", "--noheader", "--format=%T"]
        _until(
            lambda: "idle" in subprocess.run(asked, env=environment, capture_output=True, text=True).stdout,
            folder,
        )
        yield folder / "slurm.conf"
        # What a failed test has left would outlive the daemons.
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, check=True)
        _until(lambda: not subprocess.check_output(["squeue", "--noheader"], env=environment), folder)


def _configure(folder: Path) -> None:
    for part in ("state", "spool"):
        (folder / part).mkdir()
    folder.chmod(0o755)
    (folder / "munge.key-file").write_bytes(os.urandom(128))
    (folder / "munge.key-file").chmod(0o600)
    ports = _free_ports(2)
    text = _CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        user=getpass.getuser(),
        folder=folder,
        controller=ports[0],
        node=ports[1],
    )
    (folder / "slurm.conf").write_text(text)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@contextmanager
def _daemon(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{words[0]}.out").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(ready: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        if time.monotonic() > deadline:
            logs = {path.name: path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out")}
            pytest.fail(f"Slurm did not start: {logs}")
        time.sleep(0.1)
