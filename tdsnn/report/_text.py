"""The Markdown of a card: the template of ``cards/templates`` and what is put into it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template

from tdsnn import paths
from tdsnn.report import _measured, _tables
from tdsnn.report._exports import export_section
from tdsnn.report._facts import Facts
from tdsnn.report._markdown import code, text, words
from tdsnn.report.documents import Survey
from tdsnn.schema import FileRecord
from tdsnn.text import visible

FIGURES = "figures/"


def body(facts: Facts, *, metadata: str, figures: str) -> str:
    """The whole README.md.

    Args:
        metadata: YAML of the front matter.
        figures: prefix of links to figures.
    """
    template = _compiled(_template("model.md.j2"))
    return visible(
        template.render(metadata=metadata, **_about(facts), **_figures(facts), **_found(facts, figures))
    )


@cache
def _compiled(source: str) -> Template:
    """A template as Jinja runs it; making that takes several times as long as filling it in."""
    # No autoescape, which is for HTML; the filters are for Markdown.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"text": text, "words": words, "code": code}
    return environment.from_string(source)


def is_figure(file: FileRecord) -> bool:
    """Whether a card shows this file of a release."""
    return file.path.startswith(FIGURES) and file.path.endswith(".png")


def _about(facts: Facts) -> dict[str, Any]:
    """What the manifest says."""
    manifest = facts.entry.manifest
    other = manifest.twin if manifest.twin != manifest.name else None
    return {
        "name": manifest.name,
        "summary": manifest.summary,
        "dataset": _dataset_link(facts),
        "shape": facts.dataset.shape,
        "spiking": "timesteps" in manifest.arguments,
        "timesteps": manifest.arguments.get("timesteps", 1),
        "topographic": manifest.topographic,
        "loss": manifest.topography.loss,
        "preparation": manifest.topography.preparation,
        "partner": other,
        "leader": facts.pair.entries[0].name,
        "epochs": manifest.recipe.epochs,
        "seed": manifest.recipe.seed,
        "architecture": manifest.architecture,
        "network": _tables.network(manifest),
        "notes": manifest.notes,
        "citation": _arxiv_links(manifest.citation),
        "bibtex": "\n\n".join(bibtex(manifest.citation)),
        "licence": manifest.licence,
    }


def _figures(facts: Facts) -> dict[str, Any]:
    """What the releases say."""
    pair = facts.pair
    layers = {layer for metric in facts.entry.release.metrics.values() for layer in metric.get("layers", {})}
    return {
        "withheld": facts.withheld,
        "paired": facts.other is not None,
        "sheet_layers": len(layers),
        "results": _tables.results(pair),
        "layer_tables": _tables.by_layer(pair),
        "log": _tables.log(pair),
        "recipe": _tables.recipe(pair),
        "provenance": _tables.provenance(facts.entry.release),
    }


def _found(facts: Facts, figures: str) -> dict[str, Any]:
    """What the official documents say, and pictures."""
    names = [one.name for one in facts.pair.entries]
    shown = [file for file in facts.entry.release.files if is_figure(file)]
    attacks = [entry["attack"] for result in facts.results for entry in result.settings["attacks"]]
    return {
        "benches": [_measured.bench_section(result, facts.pair) for result in facts.results],
        "surveys": [_survey(facts, survey) for survey in facts.surveys],
        "exports": [export_section(certificate) for certificate in facts.certificates],
        "formats": list(dict.fromkeys(certificate.format for certificate in facts.certificates)),
        "masked": any(_measured.signs(result, names) for result in facts.results),
        "attacks": ", ".join(dict.fromkeys(attacks)),
        "not_mapped": _not_mapped(facts.surveys),
        "figures": [_picture(PurePosixPath(file.path), figures) for file in shown],
    }


def _survey(facts: Facts, survey: Survey) -> dict[str, Any]:
    shown = ", ".join(f"{name} ({images:,} images)" for name, images in survey.stimuli.items())
    return {
        "seed": survey.seed,
        "sheets_of": survey.sheets_of,
        "stimuli": shown,
        "sections": _measured.survey_sections(survey, facts.pair),
    }


def _not_mapped(surveys: Sequence[Survey]) -> list[str]:
    lacking = [set(_measured.not_mapped(survey)) for survey in surveys]
    return [title for title in _measured.titles() if all(title in one for one in lacking)]


def _picture(path: PurePosixPath, figures: str) -> dict[str, str]:
    return {"alt": words(path.stem.replace("-", " ")), "link": figures + quote(path.name)}


def _dataset_link(facts: Facts) -> str:
    title, repo = words(facts.dataset.title), facts.dataset.repo
    return title if repo is None else f"[{title}](https://huggingface.co/datasets/{repo})"


def _arxiv_links(citation: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[\g<0>](https://arxiv.org/abs/\1)", words(citation))


def bibtex(citation: str) -> list[str]:
    """Entries of ``cards/templates/citations.bib`` for the arXiv papers that a citation names."""
    entries = re.split(r"\n(?=@)", _template("citations.bib").strip())
    wanted = re.findall(r"arXiv:(\d{4}\.\d{4,5})", citation)
    return [
        entry.strip()
        for number in wanted
        for entry in entries
        if re.search(rf"eprint\s*=\s*{{{re.escape(number)}}}", entry)
    ]


def _template(name: str) -> str:
    return paths.bundled("cards", "templates", name).read_text(encoding="utf-8")
