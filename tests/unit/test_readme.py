"""The examples of the README run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tdsnn.errors import MissingError

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "torchvision" in example:
        pytest.importorskip("torchvision")
    try:
        exec(compile(example, str(README), "exec"), {"__name__": "example"})
    except MissingError as error:
        pytest.skip(error.message)  # of a dataset that this machine lacks
    if "maps" in example:
        assert list(tmp_path.glob("maps/*.png"))
