"""``tdsnn-zoo data``: exit codes, what goes to stdout, and what a person is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tdsnn.cli.main import main
from tdsnn.data._base import DATASETS

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as caught:
        main(["data", *arguments])
    return int(caught.value.code or 0)


def process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tdsnn", "data", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_list_shows_every_dataset(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    table = capsys.readouterr().out
    assert run("list", "--json") == 0
    entries = {entry["name"]: entry for entry in output_json(capsys)}
    assert tuple(entries) == DATASETS.names()
    assert all(name in table for name in entries)
    assert entries["cifar10"]["splits"]["test"]["size"] == 10_000
    assert entries["floc"]["splits"]["train"]["sha256"] is None
    assert entries["digits"]["cached_splits"] == []


def test_list_imports_no_torch_and_no_numpy() -> None:
    code = (
        "import sys\nfrom tdsnn.cli.main import main\n"
        "try: main(['data', 'list'])\n"
        "except SystemExit: sys.exit(' '.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["list", "fetch", "verify"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"tdsnn-zoo data {command}" in capsys.readouterr().out


def test_fetch_verify_damage_and_repair(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert run("fetch", "digits", "--json") == 0
    fetched = output_json(capsys)
    assert {split: part["size"] for split, part in fetched["splits"].items()} == {"train": 1442, "test": 355}
    assert all(part["pinned"] for part in fetched["splits"].values())
    assert run("verify", "digits", "--json") == 0
    assert output_json(capsys) == fetched

    (path,) = (cache / "data" / "digits").glob("test-*.images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run("verify", "digits", "--split", "train") == 0
    assert "as pinned" in capsys.readouterr().out
    assert run("verify", "digits") == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert str(path) in told.err
    assert fetched["splits"]["test"]["sha256"] in told.err
    assert "tdsnn-zoo data fetch digits" in told.err
    assert run("fetch", "digits") == 0
    assert run("verify", "digits") == 0


def test_an_unusable_mirror_exits_3(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mirror" / "cifar10" / "plain_text" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 and nothing else")
    monkeypatch.setenv("TDSNN_DATA", str(tmp_path / "mirror"))
    assert run("fetch", "cifar10", "--split", "test") == 3
    assert str(path) in capsys.readouterr().err


def test_names_that_do_not_exist_exit_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "cifar") == 2
    assert "Did you mean cifar10" in capsys.readouterr().err
    assert run("fetch", "digits", "--split", "tset") == 2
    assert "Did you mean test" in capsys.readouterr().err


def test_a_machine_without_network_exits_4_within_ten_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    done = process("fetch", "cifar100", TDSNN_CACHE=str(tmp_path), TDSNN_DATA=str(tmp_path / "none"))
    out, err = done.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert (done.returncode, out) == (4, "")
    for part in ("cache:", "local mirror:", "Hub dataset uoft-cs/cifar100:", "One of these helps:"):
        assert part in err


def test_two_processes_may_fetch_at_once(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    both = [process("fetch", "digits", "--json", TDSNN_CACHE=str(tmp_path)) for _ in range(2)]
    results = [(json.loads(each.communicate(timeout=60)[0]), each.returncode) for each in both]
    assert results[0] == results[1]
    assert results[0][1] == 0
    assert len(list((tmp_path / "data" / "digits").iterdir())) == 8
