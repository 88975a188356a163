"""``doctor``: it always answers, says what is so, and each problem comes with what helps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsnn.cli import _doctor_findings
from tdsnn.cli.main import main
from tdsnn.data._base import DATASETS
from tdsnn.data._sources import HubRepo, IdxFolder, LocalMirror, ParquetLayout, PythonPackage, Source
from tdsnn.errors import MissingError
from tdsnn.kernels import _library, status
from tdsnn.paths import install_command

ROOT = Path(__file__).parents[2]
LAYOUT = ParquetLayout(config="plain", image="image", label="label")
Usage = namedtuple("Usage", ["total", "used", "free"])
REASON = "a reason [red]for tests"


@pytest.fixture
def machine(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No compiled operators, no data, a Hub that answers; returns the empty cache."""
    monkeypatch.setattr(status, "library", lambda: _library.Library(None, REASON))
    monkeypatch.setattr(status, "has_tiles", lambda: False)
    monkeypatch.setattr("tdsnn.hub._client._unreachable", lambda endpoint: "")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(9 << 30, 1 << 30, 8 << 30))
    monkeypatch.setenv("TDSNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("TDSNN_DATA", raising=False)
    return cache


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    assert not caught.value.code, "it is a report: what is missing does not make it fail"
    return capsys.readouterr().out


def report(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(show(capsys, "--json"))


def helps(document: Any, word: str) -> list[str]:
    """What helps against the one problem that has ``word`` in it."""
    (found,) = [each["help"] for each in document["problems"] if word in each["problem"]]
    return list(found)


def test_help_has_examples_and_needs_no_torch() -> None:
    code = (
        "import sys\nfrom tdsnn.cli.main import main\ntry: main(['doctor', '--help'])\n"
        "finally: print({'torch', 'numpy', 'tdsnn.data'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tdsnn-zoo doctor --json" in done.stdout
    assert done.stderr.strip() == "set()"


def test_document(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys)
    assert document["cpu"]["cores"] == os.cpu_count()
    assert document["cpu"]["threads"] == torch.get_num_threads()
    assert document["versions"]["torch"] == version("torch")
    assert [dataset["name"] for dataset in document["datasets"]] == list(DATASETS.names())
    assert {path["operator"] for path in document["operators"]} == {
        status.BN_ADD_LIF,
        status.FORWARD,
        status.INPUT_GRADIENT,
        status.WEIGHT_GRADIENT,
        status.COLUMNS,
        status.SWAPS,
    }
    assert len(document["cuda"]["devices"]) == torch.cuda.device_count()
    assert document["folders"]["TDSNN_CACHE"]["path"] == str(machine)
    assert document["folders"]["TDSNN_CACHE"]["free_gib"] == 8
    assert not [each for each in document["problems"] if "left" in each["problem"]]
    assert not machine.exists(), "looking leaves nothing behind"


def test_people_see_the_same_without_loss(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, text = report(capsys), show(capsys)
    for path in document["operators"]:
        assert f"{path['operator']} ({path['device']})" in text
    assert text.count(REASON) == 5, "four operators and a problem; nothing is read as markup"
    for each in document["problems"]:
        assert each["problem"] in text
        assert all(remedy in text for remedy in each["help"])
    for dataset in document["datasets"]:
        assert all(source["source"] in text for source in dataset["sources"])


def test_messages_stay_off_stdout(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    told = capsys.readouterr()
    json.loads(told.out)
    assert "Asking the Hub" in told.err
    assert ("Preparing compiled" in told.err) == (_library.find_compiler() is not None)


FLAGS = "flags\t\t: fpu avx2 avx512f"


@pytest.mark.parametrize(
    ("listed", "expected", "words"),
    [
        (FLAGS, [True, True, False, False], "AVX2: yes, AVX-512: yes, AVX-512 bf16: no, AMX bf16: no"),
        ("Features\t: fp asimd", [False] * 4, "AVX2: no"),
        ("arm", [None] * 4, "AVX2: not determined"),
    ],
)
def test_cpu_features(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    listed: str,
    expected: list[bool | None],
    words: str,
) -> None:
    monkeypatch.setattr(_doctor_findings, "cpu_features", lambda: listed)
    assert list(report(capsys)["cpu"]["features"].values()) == expected
    assert words in show(capsys)


def test_without_a_compiler(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(machine))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(status, "library", _library.library.__wrapped__)
    document = report(capsys)
    assert document["compiler"] is None
    assert (document["operators"][0]["path"], document["operators"][3]["path"]) == ("eager", "PyTorch")
    assert "no C++ compiler found" in document["operators"][3]["reason"]
    assert helps(document, "no C++ compiler found") == ["Debian and Ubuntu: apt-get install g++"]
    assert "compiler      none found" in show(capsys)


def test_a_compiler_that_does_not_run(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "broken"
    compiler.write_bytes(b"\x7fELF")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    document = report(capsys)
    assert document["compiler"] == {"path": str(compiler), "version": None}
    assert helps(document, REASON) == ["Try another compiler: CXX=COMPILER tdsnn-zoo doctor"]


def test_folders_that_cannot_be_used(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TDSNN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2 << 30, 3 << 29, 1 << 29))
    monkeypatch.setenv("CXX", sys.executable)
    document = report(capsys)
    assert not document["folders"]["TDSNN_CACHE"]["writable"]
    assert document["folders"]["TDSNN_RUNS"]["writable"]
    assert document["folders"]["TDSNN_RUNS"]["free_gib"] == 0.5
    assert helps(document, "Not a directory") == ["export TDSNN_CACHE=FOLDER"]
    assert helps(document, "0.5 GiB left") == ["export TDSNN_RUNS=FOLDER"]
    assert helps(document, REASON) == ["export TDSNN_CACHE=FOLDER"]


def test_training_extra(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = _doctor_findings.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "accelerate" else find(name))
    assert helps(report(capsys), "accelerate") == [install_command("train")]


def test_hub_that_answers(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys)
    assert document["hub"] == {"endpoint": os.environ["HF_ENDPOINT"], "offline": False, "problem": ""}
    assert not [each for each in document["problems"] if "cifar10" in each["problem"]], "the Hub has it"


def test_hub_that_does_not_answer(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tdsnn.hub._client._unreachable", lambda endpoint: f"{endpoint} is down")
    document = report(capsys)
    problem = f"{os.environ['HF_ENDPOINT']} is down"
    assert document["hub"]["problem"] == problem
    assert "export HF_ENDPOINT" in "".join(helps(document, problem))
    remedies = helps(document, "cifar10 is not on this machine (train, test)")
    assert remedies[0].startswith("Set TDSNN_DATA to a folder that has cifar10/plain_text/train-")
    assert remedies[-1] == "From the Hub: connect to the network, then tdsnn-zoo data fetch cifar10"


def test_offline_mode_asks_nobody(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tdsnn.hub._client._unreachable", None)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    document = report(capsys)
    assert document["hub"]["offline"]
    assert not [each for each in document["problems"] if "cannot be reached" in each["problem"]]
    assert helps(document, "cifar10 is")[-1].startswith("From the Hub: unset HF_HUB_OFFLINE")
    assert "not asked: HF_HUB_OFFLINE is set" in show(capsys)


def test_data_that_is_there(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tdsnn.hub._client._unreachable", lambda endpoint: "down")
    monkeypatch.setenv("TDSNN_DATA", str(tmp_path))
    path = tmp_path / "cifar10" / "plain_text" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    path.touch()
    decoded = machine / "data" / "cifar10"
    decoded.mkdir(parents=True)
    document = report(capsys)
    (cifar10,) = [dataset for dataset in document["datasets"] if dataset["name"] == "cifar10"]
    assert (cifar10["decoded"], cifar10["sources"][0]["has"]) == ([], ["test"])
    assert helps(document, "cifar10 is not on this machine (train)")
    digest = DATASETS.load("cifar10").splits["train"].digest
    (decoded / f"train-{(digest or 'x')[:12]}.json").touch()
    document = report(capsys)
    assert not [each for each in document["problems"] if "cifar10 " in each["problem"]]
    assert "train; not test (tdsnn-zoo data fetch cifar10)" in show(capsys)


SOURCES: list[tuple[Source, Source | None]] = [
    (LocalMirror(folder="here", layout=LAYOUT), LocalMirror(folder="gone", layout=LAYOUT)),
    (HubRepo(repo="some/one", layout=LAYOUT), HubRepo(repo="some/two", layout=LAYOUT)),
    (HubRepo(repo="some/one", layout=LAYOUT), HubRepo(repo="a/b/c", layout=LAYOUT)),
    (PythonPackage(package="p", module="json", reader=lambda _: None), None),
    (IdxFolder(folder=Path(), files={"test": ("a", "b")}, package="p"), None),
]


@pytest.mark.parametrize(("present", "absent"), SOURCES, ids=lambda source: type(source).__name__)
def test_sources_know_what_they_have_without_reading_or_asking(
    present: Source, absent: Source | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.hub.datasets.look_up", None)
    monkeypatch.setenv("TDSNN_DATA", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "datasets--some--one"
    files = [tmp_path / name for name in ("a", "b")]
    files += [folder / LAYOUT.filename("test") for folder in (tmp_path / "here", repo / "snapshots" / "c")]
    for path in [*files, repo / "refs" / "main"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("c")
    if isinstance(present, IdxFolder):
        present = replace(present, folder=tmp_path)
        absent = replace(present, files={"test": ("a", "gone")})
    if isinstance(present, PythonPackage):
        absent = replace(present, module="no_such_module_here")
    assert absent is not None
    present.check("test")
    with pytest.raises(MissingError):
        absent.check("test")
