"""The examples of the README run as they are printed, but on fewer images and with less patience."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tdsnn.errors import MissingError

README = Path(__file__).parents[2] / "README.md"
SHORTER = {"n=50": "n=8", "attempts_per_unit=20": "attempts_per_unit=1"}
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


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
