"""What an exported file was found to answer, beside the model that it is from. Nothing here needs torch.

``FILE.certificate.json`` lies beside the exported file; official ones are copied to
``benchmarks/results/export`` and shown in the cards of models with the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from tdsnn import paths
from tdsnn.errors import IntegrityError
from tdsnn.files import read_json, write_atomic
from tdsnn.schema import Count, Finite, Sha256, Share, Table, plain
from tdsnn.table import Table as PlainTable
from tdsnn.validation import check

LOGITS_BAR = 1e-4
"""Largest difference of a logit on an image without a flipped spike."""
_SUFFIX = ".certificate.json"
Positive = Annotated[int, Meta(ge=1)]


class ExportedFile(Table, frozen=True, kw_only=True):
    """The file that was verified."""

    name: str
    size: Count
    sha256: Sha256


class LayerFlips(Table, frozen=True, kw_only=True):
    """Spikes of one layer that are in only one of the two spike trains."""

    layer: str
    flips: Count
    compared: Positive
    """Units times steps times images."""

    @property
    def rate(self) -> float:
        """Share of what was compared."""
        return self.flips / self.compared


class OtherClass(Table, frozen=True, kw_only=True):
    """An image for which the file chooses another class."""

    image: Count
    """Its place in the split."""
    lead: Finite
    """By how much the model's largest logit exceeds its second."""
    flips: Count
    """Spikes of all layers and steps that are in only one of the two."""


class OwnPaths(Table, frozen=True, kw_only=True):
    """The model's compiled operators against PyTorch's on the same images: how far rounding alone leads."""

    argmax_differences: Count
    moved_images: Count
    """Images with a logit that differs by more than :data:`LOGITS_BAR`."""


class Latency(Table, frozen=True, kw_only=True):
    """Time of one batch, medians of alternating runs in one process."""

    batch: Positive
    rounds: Positive
    model_ms: Finite
    runtime_ms: Finite


class Certificate(Table, frozen=True, kw_only=True):
    """``FILE.certificate.json``."""

    schema: Literal[1] = 1
    name: str
    """Zoo entry, or the architecture of a model in memory."""
    format: str
    file: ExportedFile
    weights_sha256: Sha256
    timesteps: Positive
    dataset: str
    split: str
    data_digest: Sha256
    n: Positive
    """First images of the split, in canonical order."""
    runtime: str
    """What ran the file, with its version."""
    largest_logit: Finite
    """Largest magnitude of the model's logits."""
    worst_difference: Finite
    """Largest difference of a logit."""
    worst_without_flips: Finite
    """The same over the images without a flipped spike."""
    other_classes: tuple[OtherClass, ...]
    flipped_images: Count
    """Images with at least one flipped spike."""
    own_paths: OwnPaths | None = None
    """None where the model has no compiled operators."""
    layers: tuple[LayerFlips, ...]
    """Empty for a network without spikes."""
    latency: tuple[Latency, ...]
    """Empty if the format has no runtime."""
    compiled: bool
    """Whether the model's times are those of its compiled operators."""
    provenance: Mapping[str, Any]
    """Versions, threads, machine, code, date."""

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the file is not the model, each the rest of a sentence about the file; empty if it is."""
        found = []
        if self.other_classes:
            found.append(f"chooses another class on {len(self.other_classes):,} of {self.n:,} images")
        if not self.worst_without_flips <= LOGITS_BAR:
            found.append(
                f"has logits that differ by {self.worst_without_flips:.1e} where no spike flips, "
                f"more than {LOGITS_BAR:.0e}"
            )
        return tuple(found)

    @property
    def flip_rate(self) -> Share:
        """Share of all spikes and silences that are flipped; 0 without spikes."""
        compared = sum(layer.compared for layer in self.layers)
        return sum(layer.flips for layer in self.layers) / compared if compared else 0.0

    @property
    def chosen(self) -> str:
        """How many images get another class, and how near the model was to it."""
        lead = max((one.lead for one in self.other_classes), default=0.0)
        near = f" (lead of the model at most {lead:.2g})" if self.other_classes else ""
        return f"{len(self.other_classes):,}{near}"

    @property
    def own(self) -> str:
        """How far apart the model's own paths are, as the rest of a sentence; empty if it has one only."""
        if self.own_paths is None:
            return ""
        return (
            f"the model's compiled operators, which fold nothing, move a logit by more than "
            f"{LOGITS_BAR:.0e} on {self.own_paths.moved_images:,} of {self.n:,} images, and the class on "
            f"{self.own_paths.argmax_differences:,}"
        )

    def document(self) -> dict[str, Any]:
        """As plain values, with what follows from the others."""
        return {**plain(self), "passed": not self.failures, "flip_rate": self.flip_rate}

    def tables(self) -> list[PlainTable]:
        """Answers, spikes and times, for people."""
        return [self._answers(), *([self._spikes()] if self.layers else []), *self._times()]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def _answers(self) -> PlainTable:
        return PlainTable(
            title=f"{self.file.name} against {self.name}, T = {self.timesteps}",
            columns=("on the same images", "found"),
            rows=[
                (f"images ({self.dataset}, {self.split})", f"{self.n:,}"),
                ("other class chosen", self.chosen),
                ("worst difference of a logit", f"{self.worst_difference:.1e}"),
                ("the same where no spike flips", f"{self.worst_without_flips:.1e}"),
                ("largest logit", f"{self.largest_logit:.1f}"),
                *([("images with a flipped spike", f"{self.flipped_images:,}")] if self.layers else []),
            ],
            caption=f"{self.runtime}. {'Failed' if self.failures else 'Passed'}: the same class on all "
            f"images, and logits within {LOGITS_BAR:.0e} where no spike flips.",
        )

    def _spikes(self) -> PlainTable:
        return PlainTable(
            title="Spikes that only one of the two has",
            columns=("layer", "flips", "of", "rate"),
            rows=[
                (one.layer, f"{one.flips:,}", f"{one.compared:,}", f"{one.rate:.1e}") for one in self.layers
            ],
            caption="Folded normalisations and other convolutions round differently; a spike at the "
            f"threshold then flips, and more after it{f'; {self.own}' if self.own else ''}.",
        )

    def _times(self) -> list[PlainTable]:
        if not self.latency:
            return []
        path = "compiled operators" if self.compiled else "PyTorch"
        threads = self.provenance["threads"]
        return [
            PlainTable(
                title="Time of one batch, ms",
                columns=("images", f"here ({path})", self.runtime),
                rows=[
                    (f"{one.batch:,}", f"{one.model_ms:.2f}", f"{one.runtime_ms:.2f}") for one in self.latency
                ],
                caption=f"Medians of {self.latency[0].rounds} alternating rounds, "
                f"{threads} thread{'s' if threads > 1 else ''} each, {self.provenance['device_name']}.",
            )
        ]


def beside(path: Path) -> Path:
    """Where the certificate of an exported file is."""
    return path.with_name(path.name + _SUFFIX)


def write(certificate: Certificate, path: Path) -> None:
    """Write a certificate in one step; equal content, equal bytes."""
    text = json.dumps(certificate.document(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(path, text.encode())


def read(path: Path) -> Certificate:
    """A certificate as it was written, maybe by another version.

    Raises:
        IntegrityError: it cannot be read, or does not fit.
    """
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"The certificate '{path}' cannot be read: {error}.", hint="Export again with --verify."
        ) from error
    return check(document, Certificate, name=f"The certificate '{path}'", recorded=True, error=IntegrityError)


def official(weights_sha256: str) -> tuple[Certificate, ...]:
    """Certificates of ``benchmarks/results/export`` about these weights, by file name.

    Raises:
        IntegrityError: one of them is damaged.
    """
    files = sorted(paths.bundled("benchmarks", "results", "export").glob("*.json"))
    return tuple(found for found in map(read, files) if found.weights_sha256 == weights_sha256)
