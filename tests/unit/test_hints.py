"""Commands in hints are to be typed, so a shell must take each name and path in them for one plain word."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from tiny import MANIFEST

import tdsnn
from tdsnn import store
from tdsnn.errors import MissingError, UsageError
from tdsnn.paths import zoo_folders

ROOT = Path(tdsnn.__file__).parent
COMMAND = re.compile(r"(?:tdsnn-zoo(?: [\w.-]+)+|\brm(?: -r)?|\bcp|\bmkdir -p|\bgit checkout) '?$")


def unquoted(path: Path) -> list[str]:
    """Values that stand in the place of an argument as they are."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for before, value in pairwise(parts):
            if isinstance(before, ast.Constant) and COMMAND.search(str(before.value)):
                text = ast.unparse(value)
                if "quote(" not in text and "shlex.join(" not in text:
                    found.append(f"{path.name}:{value.lineno} {text}")
    return found


def test_every_command_quotes_what_it_names() -> None:
    assert [each for path in sorted(ROOT.rglob("*.py")) for each in unquoted(path)] == []


def test_the_check_sees_what_it_looks_for(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text("f'Train it: tdsnn-zoo train {name}', f\"rm '{path}'\"")
    good.write_text("f'tdsnn-zoo train {quote(name)}', f'No {name}.'")
    assert (len(unquoted(bad)), unquoted(good)) == (2, [])


def test_hostile_names(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "my zoo"
    (mine / "models").mkdir(parents=True)
    name = "$(touch X).x"
    (mine / "models" / f"{name}.toml").write_text(MANIFEST)
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    with pytest.raises(MissingError) as missing:
        store.locate(name)
    assert missing.value.hint.endswith("tdsnn-zoo train '$(touch X).x'")
    monkeypatch.setenv("TDSNN_ZOO", f"{tmp_path}/it's; rm")
    with pytest.raises(UsageError) as usage:
        zoo_folders()
    assert usage.value.hint == f"""Make it with mkdir -p '{tmp_path}/it'"'"'s; rm/models'"""
