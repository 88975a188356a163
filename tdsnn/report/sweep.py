"""A sweep's document as one row for each group: what its settings cost in accuracy and what they bring.

A group is one entry under one label, over its seeds; those of an entry stand in the order of the numbers in
their labels. Intervals are Student's t over seeds, since the question is what another training would give;
the accuracy of a lone seed has its Wilson interval over images instead, and everything else of it none. Means
over layers are over the same layers in every group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tdsnn.registry import suggest
from tdsnn.report._sweep_documents import SweepDocument, SweepRun
from tdsnn.report._sweep_groups import Difference, Group, group_of, manifest_of, mean
from tdsnn.schema import plain
from tdsnn.stats import holm, paired_mean_difference

SCHEMA = 1
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What a document says."""

    sweep: str
    summary: str
    baseline: str
    """Name of the group that the others are compared with."""
    groups: tuple[Group, ...]
    alignment_layers: tuple[str, ...]
    """Layers that the means are over."""
    smoothness_layers: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences on what was left out."""

    @property
    def shows_topography(self) -> bool:
        """Whether P(r, d) tells the groups apart: a spatial loss was used, and some layer is left."""
        trained = any(group.topographic is not False for group in self.groups)
        return trained and bool(self.alignment_layers)

    @property
    def images(self) -> str:
        """Number of held-out images, in words."""
        return " or ".join(f"{n:,}" for n in sorted({group.n for group in self.groups}))

    def document(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {"schema": SCHEMA, **plain(self)}


def summarise(document: SweepDocument, *, baseline: str | None = None) -> SweepReport:
    """Group the runs of a document and compare the groups with one of them.

    Args:
        baseline: name of a group. By default the only one without a spatial loss beside topographic ones of
            the same entry or of its twin; if there is none or several, the first.

    Raises:
        UsageError: no such group, or a group that mixes settings or images.
    """
    members: dict[tuple[str, str], list[SweepRun]] = {}
    entries = list(dict.fromkeys(run.entry for run in document.runs))
    for run in sorted(document.runs, key=lambda run: (entries.index(run.entry), _natural(run.label))):
        members.setdefault((run.entry, run.label), []).append(run)
    aligned, silent = _layers(run.alignment for run in document.runs)
    smooth, undefined = _layers(run.smoothness for run in document.runs if run.smoothness is not None)
    titles = [label or entry for entry, label in members]
    groups = [
        group_of(
            f"{entry}+{label}" if label and titles.count(label) > 1 else label or entry,
            runs,
            aligned=aligned,
            smooth=smooth,
        )
        for (entry, label), runs in members.items()
    ]
    reference = _baseline(groups, baseline)
    compared = _compare(groups, reference)
    notes = [
        *_left_out("P(r, d)", silent, "fire too little, or were not measured, in some run"),
        *_left_out("category smoothness", undefined, "lack it in some run"),
        *_notes(compared, reference),
    ]
    return SweepReport(
        sweep=document.sweep,
        summary=document.summary,
        baseline=reference.name,
        groups=tuple(compared),
        alignment_layers=aligned,
        smoothness_layers=smooth,
        notes=tuple(notes),
    )


def _natural(name: str) -> list[str | float]:
    """A key that sorts numbers in names as numbers: 3 before 10."""
    return [float(part) if place % 2 else part for place, part in enumerate(_NUMBER.split(name))]


def _layers(runs: Iterable[Mapping[str, float | None]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Layers with a value in all runs, and the others."""
    found = list(runs)
    every = dict.fromkeys(layer for run in found for layer in run)
    common = tuple(layer for layer in every if all(run.get(layer) is not None for run in found))
    return common, tuple(layer for layer in every if layer not in common)


def _baseline(groups: Sequence[Group], name: str | None) -> Group:
    named = {group.name: group for group in groups}
    if name is not None:
        if name not in named:
            raise suggest(name, named, kind="group in this sweep")
        return named[name]
    entries = {group.entry for group in groups if group.topographic}
    entries |= {found.twin for entry in entries if (found := manifest_of(entry)) is not None}
    plain = [group for group in groups if group.topographic is False and group.entry in entries]
    return plain[0] if len(plain) == 1 else groups[0]


def _compare(groups: Sequence[Group], baseline: Group) -> list[Group]:
    found = [None if group is baseline else _difference(group, baseline) for group in groups]
    tested = [one for one in found if one is not None and one.p_value is not None]
    adjusted = iter(holm([one.p_value for one in tested if one.p_value is not None]))
    return [
        replace(group, difference=replace(one, p_holm=next(adjusted)) if one in tested else one)
        for group, one in zip(groups, found, strict=True)
    ]


def _difference(group: Group, baseline: Group) -> Difference | None:
    ours, theirs = ({one.seed: one.accuracy for one in side.seeds} for side in (group, baseline))
    common = tuple(seed for seed in ours if seed in theirs)
    if not common or not _same_images(group, baseline):
        return None
    a, b = [ours[seed] for seed in common], [theirs[seed] for seed in common]
    tested = paired_mean_difference(a, b) if len(common) > 1 else None
    return Difference(
        mean=mean([one - other for one, other in zip(a, b, strict=True)]),
        seeds=common,
        p_value=tested.p_value if tested else None,
        p_holm=None,
    )


def _same_images(group: Group, baseline: Group) -> bool:
    """An entry's name ends with its dataset."""
    one, other = ((side.entry.partition(".")[2], side.n) for side in (group, baseline))
    return one == other


def _left_out(what: str, layers: Sequence[str], reason: str) -> list[str]:
    return [f"{what} is without {', '.join(layers)}, which {reason}."] if layers else []


def _notes(groups: Sequence[Group], baseline: Group) -> list[str]:
    notes = []
    theirs = [one.seed for one in baseline.seeds]
    for group in groups:
        if group.name == baseline.name:
            continue
        if not _same_images(group, baseline):
            notes.append(f"{group.name} is not compared: its held-out images are others.")
            continue
        ours = [one.seed for one in group.seeds]
        alone = ", ".join(str(seed) for seed in sorted({*ours} ^ {*theirs}))
        if alone:
            paired = group.difference.seeds if group.difference else ()
            seeds = ", ".join(map(str, paired)) or "none"
            notes.append(
                f"{group.name} and {baseline.name} are compared on the seeds that both have ({seeds}); "
                f"left out: {alone}."
            )
    measured = [group for group in groups if any(one.smoothness is not None for one in group.seeds)]
    notes += [
        f"Category smoothness of {group.name} was not measured on all of its seeds."
        for group in measured
        if group.smoothness is None
    ]
    return notes
