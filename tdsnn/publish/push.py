"""A release as one commit of a Hub repository: what it would do first, then doing it."""

from __future__ import annotations

import difflib
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from tdsnn import hub, store
from tdsnn.benchmark.gates import Gate
from tdsnn.data._base import DATASETS
from tdsnn.manifest import load_release, resolve
from tdsnn.progress import Progress, silent
from tdsnn.publish.gates import check_release
from tdsnn.report import cards
from tdsnn.schema import FileRecord, Release

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What publishing an entry would do."""

    name: str
    reference: hub.Reference
    files: Mapping[str, bytes]
    """Path in the repository to content."""
    gates: tuple[Gate, ...]
    """What the model passed."""
    comparison: hub.Comparison
    metadata_diff: tuple[str, ...]
    """Lines of a unified diff from the metadata there to ours; empty where they are equal."""
    texts: Mapping[Path, bytes]
    """The card as the zoo keeps it, file to content."""
    release: Release


def draft(name: str, reference: hub.Reference, *, progress: Progress = silent) -> Draft:
    """Check an entry, render its card and compare everything with the repository; changes nothing.

    Args:
        progress: of the accuracy gate, called with images done and images in all.

    Raises:
        GateError: the model failed a gate.
        UsageError, MissingError, IntegrityError: the entry, its weights or its dataset cannot be had.
        TdsnnError: the Hub refuses to tell what it has.
    """
    manifest = resolve(name)
    gates = check_release(manifest.name, progress=progress)
    location = store.locate(manifest.name)
    # The gates have seen that there is one.
    before = load_release(manifest.name)
    assert before is not None
    about = DATASETS.load(manifest.dataset).about
    texts, release = cards.contents(manifest, before, about)
    card = cards.render(manifest, release, about)
    files = {
        record.path: (location.folder / record.path).read_bytes()
        for record in release.files
        if record.path != CARD
    }
    files[CARD] = card.text.encode()
    if card.evaluation:
        files[_evaluation(manifest.name)] = card.evaluation.encode()
    comparison = hub.compare(reference, files, owned=partial(_owned, manifest.name))
    return Draft(
        name=manifest.name,
        reference=reference,
        files=files,
        gates=tuple(gates),
        comparison=comparison,
        metadata_diff=tuple(_metadata_diff(reference, comparison, card.text)),
        texts=texts,
        release=release,
    )


def send(draft: Draft, *, private: bool = False, tag: str | None = None) -> hub.Published:
    """Publish a draft and write the entry's release with the commit that it has there.

    Raises:
        UsageError, IntegrityError, TdsnnError: as :func:`tdsnn.hub.publish`; or no release can be written.
    """
    done = hub.publish(
        draft.reference,
        draft.files,
        message=f"Publish {draft.name}",
        private=private,
        tag=tag,
        owned=partial(_owned, draft.name),
    )
    published = replace(draft.release, files=_records(draft), hub_repo=done.repo, hub_commit=done.commit)
    cards.store(draft.texts, published)
    return done


def _evaluation(name: str) -> str:
    return f".eval_results/{resolve(name).dataset}.yaml"


def _owned(name: str, path: str) -> bool:
    """Whether a file of an entry's repository is there because of an earlier publication."""
    return path.startswith(cards.FIGURES) or path == _evaluation(name)


def _records(draft: Draft) -> tuple[FileRecord, ...]:
    """What the release pins: the files that it lists, with the card as it was sent."""
    listed = {record.path for record in draft.release.files} | {CARD}
    return tuple(
        FileRecord(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(draft.files.items())
        if path in listed
    )


def _metadata_diff(reference: hub.Reference, comparison: hub.Comparison, card: str) -> list[str]:
    states = {change.path: change.state for change in comparison.changes}
    if states[CARD] == "unchanged":
        return []
    old = ""
    if states[CARD] == "changed" and comparison.head:
        there = hub.Reference(repo=reference.repo, revision=comparison.head)
        remote = hub.look_up(there).files[CARD]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / CARD
            hub.fetch_file(reference.repo, remote, commit=comparison.head, target=target)
            old = target.read_text(encoding="utf-8", errors="replace")
    before, after = (_front_matter(text) for text in (old, card))
    return list(difflib.unified_diff(before, after, reference.repo, "now", lineterm="", n=1))


def _front_matter(text: str) -> list[str]:
    """Lines between the two ``---`` that a card begins with; none without them."""
    lines = text.splitlines()
    if "---" not in lines[:1] or "---" not in lines[1:]:
        return []
    return lines[1 : lines.index("---", 1)]
