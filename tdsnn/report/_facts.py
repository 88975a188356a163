"""Everything that a card says about a model, found once: the entries, the documents, the accuracies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from tdsnn import certificates
from tdsnn import manifest as manifests
from tdsnn.certificates import Certificate
from tdsnn.report._measured import attacked, marked, strength
from tdsnn.report._tables import Entry, Pair
from tdsnn.report.documents import Survey, benches, surveys
from tdsnn.results import Cell, Result
from tdsnn.schema import About, Manifest, Release
from tdsnn.table import WORST_CASE


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A released entry, what it is compared with, and the documents about these weights."""

    entry: Entry
    pair: Pair
    withheld: bool
    """A topographic model whose twin has no release: its figures are not shown alone."""
    results: tuple[Result, ...]
    surveys: tuple[Survey, ...]
    certificates: tuple[Certificate, ...]
    """Of files that these weights were exported to."""
    dataset: About

    @property
    def other(self) -> Entry | None:
        """The entry that this one is compared with."""
        return next((one for one in self.pair.entries if one.name != self.entry.name), None)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One accuracy of the model, percent, for the metadata."""

    task: str
    """Short name of what was measured, unique within a document."""
    name: str
    value: float
    notes: str
    """Interval and n, and the other model's accuracy."""
    arguments: dict[str, Any]
    date: str | None = None


def gather(manifest: Manifest, release: Release, dataset: About) -> Facts:
    """The facts about an entry.

    Raises:
        IntegrityError: a damaged release of the twin, or a damaged result document or certificate.
    """
    # A release in memory has its keys in another order than the file that it will be.
    settled = json.loads(json.dumps([release.metrics, release.provenance], sort_keys=True))
    entry = Entry(manifest=manifest, release=replace(release, metrics=settled[0], provenance=settled[1]))
    twin = manifests.load_release(manifest.twin) if manifest.twin != manifest.name else None
    entries = [entry]
    if twin is not None:
        entries.append(Entry(manifest=manifests.resolve(manifest.twin), release=twin))
    entries.sort(key=lambda one: not one.manifest.topographic)
    withheld = manifest.topographic and twin is None
    sums = {one.name: one.release.weights_sha256 for one in entries}
    weights = {name: sha256 for name, sha256 in sums.items() if sha256 is not None}
    usable = not withheld and len(weights) == len(entries)
    return Facts(
        entry=entry,
        pair=Pair(entries=tuple(entries)),
        withheld=withheld,
        results=benches(weights, dataset=manifest.dataset) if usable else (),
        surveys=surveys(weights) if usable else (),
        certificates=certificates.official(entry.release.weights_sha256 or ""),
        dataset=dataset,
    )


def scores(facts: Facts) -> Iterator[Score]:
    """Accuracy on the test split, then under every attack that was measured; none of a withheld model."""
    if facts.withheld:
        return
    clean = facts.entry.release.metrics.get("clean_accuracy")
    if clean is not None:
        low, high = clean["interval"]
        notes = f"95 % interval {low:.2f} to {high:.2f}, n = {clean['n']:,}"
        theirs = facts.other and facts.other.release.metrics.get("clean_accuracy")
        if facts.other and theirs:
            notes += f"; {facts.other.name}: {theirs['value']:.2f}"
        yield Score(
            task="clean",
            name="Accuracy, %",
            value=clean["value"],
            notes=notes,
            arguments={"n": clean["n"], "interval_95": [low, high]},
        )
    for result in facts.results:
        for cell in attacked(result, facts.entry.name):
            # Of a suite it is the worst case that counts: what one attack of it left is no robustness.
            if not result.settings.get("suite") or cell.norm is None or cell.attack == WORST_CASE:
                yield _attacked_score(facts, result, cell)


def _attacked_score(facts: Facts, result: Result, cell: Cell) -> Score:
    figure = cell.accuracy
    assert figure is not None
    notes = f"95 % interval {figure.low:.2f} to {figure.high:.2f}, n = {figure.n:,}"
    if facts.other:
        place = (facts.other.name, cell.place)
        for theirs in result.cells:
            if (theirs.model, theirs.place) == place and theirs.accuracy is not None:
                notes += f"; {facts.other.name}: {theirs.accuracy.value:.2f}"
    doubt = "; gradients may be masked: no evidence of robustness" if marked(result, cell) else ""
    return Score(
        task="-".join(
            [cell.title.replace(" ", "-"), *([cell.norm] if cell.norm else []), f"{cell.eps_255:g}"]
        ),
        name=f"Accuracy under {cell.title}, {strength(cell)}, %",
        value=figure.value,
        notes=notes + doubt,
        arguments={
            "attack": cell.attack,
            "strength": strength(cell),
            **cell.settings,
            "n": figure.n,
            "interval_95": [figure.low, figure.high],
        },
        date=result.provenance["created"],
    )
