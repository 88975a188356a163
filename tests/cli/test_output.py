"""What commands print: nothing in it steers the terminal, wherever it comes from."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn

from tdsnn.cli import _output
from tdsnn.errors import Interrupted, TdsnnError

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\rc\x9b31m\x7f\u202egnp.exe\tend"
SHOWN = "a\ufffd]0;title\ufffd[2Jbc\ufffd31m\ufffd\ufffdgnp"
"""Rich leaves the bell and the return out by itself."""


def controls(text: str) -> set[str]:
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf")} - {"\n", "\t"}


def test_messages_tables_and_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _output.note(HOSTILE)
    _output.fail(TdsnnError(f"No {HOSTILE}.", hint=f"See {HOSTILE}"))
    _output.table(HOSTILE, (HOSTILE, "x"), [(HOSTILE, "1")], caption=HOSTILE, svg=tmp_path / "t.svg")
    _output.console().print(HOSTILE, markup=False)
    captured = capsys.readouterr()
    assert captured.err.count(SHOWN) == 3
    assert captured.out.count(SHOWN) >= 2
    assert controls(captured.out + captured.err) == set()
    assert controls((tmp_path / "t.svg").read_text()) <= {"\r"}


def test_of_several_processes_one_says_what_ended_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        _output.fail(Interrupted("Stopped."))
        _output.fail(TdsnnError(f"Met by {rank}."))
    assert capsys.readouterr().err.split("\n") == [
        "error: Stopped.",
        "error: Met by 0.",
        "error: Met by 1.",
        "",
    ]


def test_documents_escape_them(capsys: pytest.CaptureFixture[str]) -> None:
    _output.emit_json({HOSTILE: HOSTILE})
    assert controls(capsys.readouterr().out) == set()


def test_bars_on_a_terminal_keep_their_own_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    err = _output.console(stderr=True)
    with Progress(TextColumn("{task.description}", markup=False), console=err) as live:
        live.update(live.add_task(""), description=HOSTILE)
    shown = capsys.readouterr().err
    assert SHOWN in shown
    assert "\x1b[2K" in shown or "\x1b[?25" in shown, "rich still moves the cursor"
    assert not {"\x07", "\x9b", "\x7f", "\u202e"} & set(shown)
    assert "\x1b]0;" not in shown
