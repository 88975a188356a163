"""The examples of the README run as they are printed, but on fewer images and with less patience; its
commands are those of the command line.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command import run

from tdsnn.errors import MissingError

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = sorted(set(re.findall(r"(?:tdsnn-zoo|-m tdsnn) ([^#&\n]*[^#&\s])", SHELL)))
SHORTER = {"n=50": "n=8", "attempts_per_unit=20": "attempts_per_unit=1"}


def test_what_is_shortened_is_in_an_example() -> None:
    assert all(sum(long in example for example in EXAMPLES) == 1 for long in SHORTER)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "torchvision" in example:
        pytest.importorskip("torchvision")
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    try:
        exec(compile(example, str(README), "exec"), {"__name__": "example"})
    except MissingError as error:
        pytest.skip(error.message)  # of a dataset that this machine lacks
    if "maps" in example:
        assert list(tmp_path.glob("maps/*.png"))


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_command_has_the_options_that_are_shown(typed: str) -> None:
    """They are read before --help is answered."""
    assert run(*shlex.split(typed), "--help") == 0


def test_an_option_that_a_command_lacks_is_seen() -> None:
    assert run("list", "--colour", "--help") == 2
