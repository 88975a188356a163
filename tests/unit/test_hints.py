"""Commands in hints are to be typed, so a shell must take each name and path in them for one plain word."""

from __future__ import annotations

import ast
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import run
from tiny import MANIFEST

import tdsnn
from tdsnn import store
from tdsnn.attacks._base import ATTACKS
from tdsnn.data._base import DATASETS
from tdsnn.errors import MissingError, UsageError
from tdsnn.exporting.formats._base import FORMATS
from tdsnn.metrics._base import METRICS
from tdsnn.models._registry import MODELS
from tdsnn.paths import zoo_folders
from tdsnn.registry import Registry
from tdsnn.tasks._base import TASKS
from tdsnn.temporal._base import TIME_METRICS
from tdsnn.topography.losses._base import SPATIAL_LOSSES

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


KINDS = (ATTACKS, DATASETS, FORMATS, METRICS, MODELS, SPATIAL_LOSSES, TASKS, TIME_METRICS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_hint_about_an_unknown_name_leads_to_the_known_ones(
    kind: Registry[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(UsageError) as caught:
        kind.load("nothing-like-it")
    shown = caught.value.hint
    if kind.command:
        assert shown == f"See the known ones: {kind.command}"
        assert run(*shlex.split(kind.command)[1:]) == 0
        shown = capsys.readouterr().out
    words = set(re.findall(r"[\w-]+", shown.replace("-", "_")))
    assert set(kind.names()) - words == set()


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
