"""Tables of a card that come from manifests and releases: a model beside its twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdsnn.manifest import complete
from tdsnn.report._markdown import NOTHING, code, interval, setting, table, words
from tdsnn.schema import WEIGHTS_FILE, Manifest, Release, plain

_ONLY_WITH = {
    "attempts_per_unit": ("preparation", "pre-optimised"),
    "matrix_lr": ("optimizer", "muon"),
}
"""Fields that mean something only beside another field's value, in the same table."""
_LABELS = {"clean_accuracy": "accuracy without attack", "parameters": "parameters"}
_LOGGED = {
    "task": ("classification loss", ".4f"),
    "L_L": ("spatial loss of rates, L_L", ".3f"),
    "L_S": ("spatial loss of spike times, L_S", ".3f"),
    "spatial": ("spatial loss", ".3f"),
    "rate": ("mean firing rate", ".3f"),
    "masked": ("pairs of units left out because one was silent", ".1%"),
    "accuracy": ("accuracy on training images", ".2%"),
    "monitor_accuracy": ("accuracy on some test images", ".2%"),
    "held_out_accuracy": ("accuracy on held-out images", ".2%"),
    "held_out_robust_accuracy": ("accuracy on held-out images under PGD-10", ".2%"),
}
_NOT_SHOWN = {"epoch", "step", "lr", "images_per_second", "seconds_left", "cpu_seconds"}
"""Where an epoch was and how fast this machine was; the rest of its line says how it went."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A released zoo entry."""

    manifest: Manifest
    release: Release

    @property
    def name(self) -> str:
        """Full name."""
        return self.manifest.name


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Entries that are shown beside each other, the topographic one first; a lone twin is possible."""

    entries: tuple[Entry, ...]

    @property
    def headings(self) -> list[str]:
        """Title of each entry's column."""
        twin = "" if len(self.entries) == 1 else " (twin)"
        return [f"{code(one.name)}{'' if one.manifest.topographic else twin}" for one in self.entries]


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """A metric with one figure for each layer."""

    metric: str
    unit: str
    images: int | None
    text: str
    notes: tuple[str, ...]
    """Why layers have no interval, as Markdown."""


def results(pair: Pair) -> str:
    """Figures of the releases that are one number for each model."""
    shared = pair.entries[0].release.metrics.items()
    rows = []
    for key in (key for key, metric in shared if "layers" not in metric):
        found = [one.release.metrics.get(key, {}) for one in pair.entries]
        unit = found[0].get("unit", "")
        label = words(_LABELS.get(key, key)) + ("" if unit in ("", "count") else f", {words(unit)}")
        counts = dict.fromkeys(f"{metric['n']:,}" for metric in found if "n" in metric)
        rows.append([label, *map(_figure, found), " / ".join(counts) or NOTHING])
    return table(["", *pair.headings, "images"], rows)


def by_layer(pair: Pair) -> list[LayerTable]:
    """Figures of the releases that are one number for each layer."""
    tables = []
    for key, metric in pair.entries[0].release.metrics.items():
        if "layers" in metric:
            found = [one.release.metrics.get(key, {}) for one in pair.entries]
            layers = dict.fromkeys(layer for one in found for layer in one.get("layers", {}))
            rows = [[code(layer), *(_layer_figure(one, layer) for one in found)] for layer in layers]
            tables.append(
                LayerTable(
                    metric=key,
                    unit=str(metric.get("unit", "no unit")),
                    images=metric.get("n"),
                    text=table(["layer", *pair.headings], rows),
                    notes=tuple(dict.fromkeys(note for one in found for note in _without_interval(one))),
                )
            )
    return tables


def network(manifest: Manifest) -> str:
    """Arguments of the architecture."""
    rows = [[code(f"model.{key}"), setting(value)] for key, value in _flat(manifest.arguments)]
    return table(["setting", "value"], rows, left=2)


def recipe(pair: Pair) -> str:
    """Settings of training."""
    settings = [dict(_settings(one.manifest)) for one in pair.entries]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [[code(key), *(one.get(key, NOTHING) for one in settings)] for key in keys]
    return table(["setting", *pair.headings], rows, left=1 + len(settings))


def log(pair: Pair) -> str:
    """How the first and the last epoch went; empty without a log."""
    logs = [one.release.provenance.get("epochs") or [] for one in pair.entries]
    if not any(logs):
        return ""
    columns = ["figure"]
    ends: list[Mapping[str, Any]] = []
    for heading, lines in zip(pair.headings, logs, strict=True):
        for line in (lines[0], lines[-1]) if lines else ():
            columns.append(f"{heading}, epoch {line['epoch'] + 1}")
            ends.append(dict(_flat(line)))
    keys = [key for key in dict.fromkeys(key for end in ends for key in end) if key not in _NOT_SHOWN]
    keys.sort(key=lambda key: [*_LOGGED, key].index(key))
    rows = [[_logged_label(key), *(_logged(key, end.get(key)) for end in ends)] for key in keys]
    return table(columns, rows)


def provenance(release: Release) -> str:
    """Where the weights come from."""
    training = release.provenance.get("training", {})
    state = training.get("code") or {}  # none outside a checkout
    commit = (
        f"{code(state['commit'])}{' with uncommitted changes' * bool(state.get('dirty'))}"
        if state.get("commit")
        else ""
    )
    rows = [["code", commit], ["device", words(training.get("device_name") or training.get("device", ""))]]
    rows += [[key, words(training.get(key, ""))] for key in ("python", "threads")]
    rows += [
        [words(name), words(version)] for name, version in training.get("packages", {}).items() if version
    ]
    digests = release.provenance.get("data_digests", {})
    rows += [[f"{words(split)} images, sha256", code(digest)] for split, digest in digests.items()]
    sha256 = release.weights_sha256
    weights = [] if sha256 is None else [[code(WEIGHTS_FILE), f"sha256 {code(sha256)}"]]
    return table(["provenance", ""], [row for row in rows if row[1]] + weights, left=2)


def _settings(manifest: Manifest) -> Iterator[tuple[str, str]]:
    tables = {"recipe": plain(manifest.recipe), "topography": complete(manifest).topography.table()}
    for title, values in tables.items():
        for key, value in _flat(values):
            field, needed = _ONLY_WITH.get(key, (key, value))
            if values.get(field, value) == needed:
                yield f"{title}.{key}", setting(value)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of nested tables under dotted names; an empty table has none."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", one) for inner, one in _flat(value))
        else:
            yield key, value


def _figure(metric: Mapping[str, Any]) -> str:
    if "value" not in metric:
        return NOTHING
    value = metric["value"]
    if "interval" in metric:
        return interval(value, metric["interval"], "z.2f")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _layer_figure(metric: Mapping[str, Any], layer: str) -> str:
    value = metric.get("layers", {}).get(layer)
    if value is None:
        return NOTHING
    bounds: Sequence[float] | None = metric.get("intervals", {}).get(layer)
    return interval(value, bounds, "z.3f") if bounds else f"{value:z.3f}"


def _without_interval(metric: Mapping[str, Any]) -> Iterator[str]:
    for layer, reason in metric.get("without_interval", {}).items():
        yield f"{code(layer)} has no interval: {words(reason)}."


def _logged_label(key: str) -> str:
    if key in _LOGGED:
        return _LOGGED[key][0]
    group, _, term = key.partition(".")
    return f"share of the gradient, {code(term)}" if group == "gradient_shares" else code(key)


def _logged(key: str, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return NOTHING
    form = ".1%" if key.startswith("gradient_shares.") else _LOGGED.get(key, ("", ".4g"))[1]
    return f"{value:{form}}".replace("%", " %")
