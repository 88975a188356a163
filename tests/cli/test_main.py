"""The command as it starts, and what it shows whatever names look like."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console

from tdsnn.cli import _output
from tdsnn.cli.main import main

STOPPED_AT = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from tdsnn.cli.main import main
main(["list"])
"""


@pytest.mark.parametrize("module", ["typer", "rich.console", "tdsnn.cli._output", "tdsnn.manifest"])
def test_ctrl_c_while_it_starts_is_one_word(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT.format(module=module)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


def test_a_table_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "run[lr=0.1][/red]"
    _output.table(f"Table of {name}", ("model", name), [(name, "[/]")], caption=f"about {name}")
    text = capsys.readouterr().out
    assert text.count(name) == 4
    assert "[/]" in text


def test_a_narrow_terminal_cuts_no_name_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "console", lambda: Console(width=40))
    name = "tsresnet18-retinotopic.fashion_mnist-s123456"
    _output.table("Models", ("model", "dataset", "acc. %"), [(name, "fashion_mnist", "92.50")])
    text = capsys.readouterr().out
    assert "…" not in text
    column = "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert column == name


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert not stopped.value.code
    assert capsys.readouterr().out == f"tdsnn-zoo {version('tdsnn-zoo')}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("bench tsresnet18.f", {"tsresnet18.fashion_mnist"}),
        ("bench --attack fg", {"fgsm"}),
        ("bench --metric late", {"latency"}),
        ("bench --suite standard", {"standard-v1"}),
        ("info toponet", {"toponet18", "toponet18.fashion_mnist"}),
        ("data fetch fash", {"fashion_mnist"}),
    ],
)
def test_the_shell_completes_names(typed: str, offered: set[str]) -> None:
    words = f"tdsnn-zoo {typed}"
    asked = {
        "_TDSNN_ZOO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    script = Path(sys.executable).with_name("tdsnn-zoo")
    done = subprocess.run([script], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert offered <= set(done.stdout.split())
