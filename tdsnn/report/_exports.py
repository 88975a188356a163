"""Sections of a card about exported files, from their certificates."""

from __future__ import annotations

from collections.abc import Iterator

from tdsnn.certificates import Certificate, LayerFlips
from tdsnn.report._markdown import code, table, words
from tdsnn.report._measured import Section

_SPIKES = "where no spike flips"


def export_section(certificate: Certificate) -> Section:
    """How the file of one format differs from the model, and how long both take."""
    about = f"T = {certificate.timesteps}, on the first {certificate.n:,} test images"
    rows = [*_answers(certificate), *_flips(certificate.layers), *_times(certificate)]
    return Section(
        title=f"{words(certificate.format)}, {about}",
        text=table(("", "found"), rows),
        notes=tuple(_notes(certificate)),
    )


def _answers(certificate: Certificate) -> Iterator[tuple[str, str]]:
    yield "images with another class", certificate.chosen
    yield "worst difference of a logit", f"{certificate.worst_difference:.1e}"
    if certificate.layers:
        yield f"worst difference of a logit {_SPIKES}", f"{certificate.worst_without_flips:.1e}"
        yield "images with a flipped spike", f"{certificate.flipped_images:,}"
    yield "largest logit", f"{certificate.largest_logit:.1f}"


def _flips(layers: tuple[LayerFlips, ...]) -> Iterator[tuple[str, str]]:
    if layers:
        flips, compared = (sum(getattr(one, key) for one in layers) for key in ("flips", "compared"))
        yield "flipped spikes of all layers", _share(LayerFlips(layer="all", flips=flips, compared=compared))
        most = max(layers, key=lambda one: one.rate)
        yield "most in one layer", f"{_share(most)}, {code(most.layer)}"


def _share(layer: LayerFlips) -> str:
    return f"{layer.flips:,} of {layer.compared:,} ({layer.rate:.1e})"


def _times(certificate: Certificate) -> Iterator[tuple[str, str]]:
    for one in certificate.latency:
        images = f"{one.batch} image{'s' if one.batch > 1 else ''}"
        yield (
            f"ms for {images}: here / {words(certificate.runtime)}",
            f"{one.model_ms:.1f} / {one.runtime_ms:.1f}",
        )


def _notes(certificate: Certificate) -> Iterator[str]:
    if certificate.failures:
        yield f"**Failed**: the file {' and '.join(certificate.failures)}."
    if certificate.layers:
        yield (
            "A spike is flipped if only one of the two has it: folded normalisations and other convolutions "
            "round differently, and a flip at the threshold brings others after it."
        )
    if certificate.own:
        yield f"{certificate.own[0].upper()}{certificate.own[1:]}."
    if certificate.latency:
        path = "compiled operators" if certificate.compiled else "PyTorch"
        threads, machine = certificate.provenance["threads"], words(certificate.provenance["device_name"])
        yield (
            f"Times: medians of {certificate.latency[0].rounds} alternating rounds with {threads} "
            f"thread{'s' if threads > 1 else ''}, here by {path}; {machine}."
        )
    yield f"The file: {certificate.file.size:,} bytes, run by {words(certificate.runtime)}."
