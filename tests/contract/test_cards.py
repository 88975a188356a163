"""The committed model cards are what manifests, releases and official results give today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tdsnn.data._base import DATASETS
from tdsnn.manifest import entry_and_seed, list_models, load_release, resolve
from tdsnn.report import cards
from tdsnn.report._text import bibtex

RELEASED = [name for name in list_models() if load_release(name) is not None]


def committed(name: str) -> dict[Path, bytes]:
    """Files of the card as they would be written now, and that the release needs no change."""
    release, manifest = load_release(name), resolve(name)
    assert release is not None
    texts, current = cards.contents(manifest, release, DATASETS.load(manifest.dataset).about)
    assert current == release, "the release states other files: tdsnn-zoo report cards"
    return texts


@pytest.mark.parametrize("name", RELEASED)
def test_the_card_is_not_stale(name: str) -> None:
    for path, text in committed(name).items():
        assert path.is_file(), f"missing {path}: tdsnn-zoo report cards"
        assert path.read_bytes() == text, f"stale {path}: tdsnn-zoo report cards"


@pytest.mark.parametrize("name", [name for name in RELEASED if not entry_and_seed(name)[1]])
def test_the_snippet_runs(name: str) -> None:
    for path in committed(name):
        (snippet,) = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        found: dict[str, Any] = {"__name__": "snippet"}
        exec(compile(snippet, str(path), "exec"), found)
        assert found["logits"].shape == (8, len(DATASETS.load(resolve(name).dataset).classes))


@pytest.mark.parametrize("name", list_models())
def test_the_papers_of_a_citation_have_entries(name: str) -> None:
    citation = resolve(name).citation
    assert len(bibtex(citation)) == len(re.findall("arXiv:", citation)), (
        "add to cards/templates/citations.bib"
    )
