"""Model cards for the Hugging Face Hub, made from manifest, release and official results.

A card is a function of documents alone: it names neither the model's own repository nor its own checksum, so
it stays the same when the model is published, and a test can tell when it is stale. The texts are in
``cards/templates``, the documents in ``benchmarks/results``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tdsnn import manifest as manifests
from tdsnn import paths
from tdsnn.errors import UsageError
from tdsnn.files import sha256_of, write_atomic
from tdsnn.hub import require_client
from tdsnn.report._facts import Facts, Score, gather, scores
from tdsnn.report._text import FIGURES as FIGURES
from tdsnn.report._text import body, is_figure
from tdsnn.schema import About, FileRecord, Manifest, Release

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_README = "README.md"
_TASK = "image-classification"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a repository of the Hub shows about a model."""

    text: str
    """README.md: YAML front matter and Markdown."""
    evaluation: str
    """Content of ``.eval_results/DATASET.yaml``, the successor of the front matter's ``model-index``; empty
    where the dataset has no repository of the Hub or no figure may be shown."""


def render(
    manifest: Manifest,
    release: Release,
    dataset: About,
    *,
    figures: str = FIGURES,
) -> Card:
    """The card of a released zoo entry.

    Args:
        dataset: what it was trained on.
        figures: prefix of links to the release's ``figures/*.png``.

    Raises:
        UsageError: metadata that the Hub's client refuses, or ``HF_ENDPOINT`` is no address of a Hub.
        IntegrityError: a damaged release or result document.
    """
    require_client()
    from huggingface_hub import ModelCard
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not listed

    facts = gather(manifest, release, dataset)
    found = list(scores(facts))
    try:
        if dataset.repo is not None:
            validate_repo_id(dataset.repo)
        metadata = _metadata(facts, found).to_yaml()
        readme = body(facts, metadata=metadata, figures=figures)
        if ModelCard(readme).data.to_yaml() != metadata:
            raise ValueError("it reads back differently")
        evaluation = _evaluation(dataset.repo, found)
    except ValueError as error:
        raise UsageError(
            f"The Hub's client refuses the metadata of '{manifest.name}': {error}",
            hint=f"See {manifests.release_path(manifest.name)} and the dataset's sources.",
        ) from error
    return Card(text=readme, evaluation=evaluation)


def write(
    manifest: Manifest,
    release: Release,
    dataset: About,
) -> Release:
    """Write what :func:`contents` gives, and return the release that goes with it."""
    texts, release = contents(manifest, release, dataset)
    store(texts, release)
    return release


def store(texts: Mapping[Path, bytes], release: Release) -> None:
    """Write the files and then the release with their checksums."""
    for path, text in texts.items():
        write_atomic(path, text)
    manifests.write_release(release)


def contents(
    manifest: Manifest,
    release: Release,
    dataset: About,
) -> tuple[dict[Path, bytes], Release]:
    """Files of a card, and the release with their checksums; nothing is written.

    An embedded entry has a README.md in its folder, whose ``figures/*.png`` it shows; an entry of the project
    also has a copy in ``cards/generated``.
    """
    name, releases = manifest.name, manifests.release_path(manifest.name).parent
    folder = releases.parent / "checkpoints" / name
    embedded = folder.is_dir()
    if embedded:
        release = replace(release, files=(*_without_figures(release), *_drawn(folder)))

    def card(shown: Release, figures: str) -> bytes:
        return render(manifest, shown, dataset, figures=figures).text.encode()

    found: dict[Path, bytes] = {}
    if releases == paths.bundled("zoo", "releases"):
        # The pictures of an entry that is not embedded are nowhere that this copy could link to.
        shown = release if embedded else replace(release, files=_without_figures(release))
        link = f"../../zoo/checkpoints/{name}/{FIGURES}"
        found[paths.bundled("cards", "generated", f"{name}.md")] = card(shown, link)
    if embedded:
        readme = card(release, FIGURES)
        found[folder / _README] = readme
        record = FileRecord(path=_README, size=len(readme), sha256=hashlib.sha256(readme).hexdigest())
        others = (file for file in release.files if file.path != _README)
        release = replace(release, files=tuple(sorted((*others, record), key=lambda file: file.path)))
    return found, release


def _drawn(folder: Path) -> list[FileRecord]:
    return [
        FileRecord(path=f"{FIGURES}{path.name}", size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted((folder / FIGURES).glob("*.png"))
    ]


def _without_figures(release: Release) -> tuple[FileRecord, ...]:
    return tuple(file for file in release.files if not is_figure(file))


def _metadata(facts: Facts, found: Sequence[Score]) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    manifest, dataset = facts.entry.manifest, facts.dataset
    results = [
        EvalResult(
            task_type=_TASK,
            task_name="Image classification",
            dataset_type=dataset.repo or manifest.dataset,
            dataset_name=dataset.title,
            dataset_split="test",
            metric_type="accuracy",
            metric_name=f"{score.name} ({score.notes})",
            metric_value=score.value,
            metric_args=score.arguments,
        )
        for score in found
    ]
    spiking = ["spiking-neural-network"] if "timesteps" in manifest.arguments else []
    topographic = ["topographic", manifest.topography.loss] if manifest.topographic else ["non-topographic"]
    return ModelCardData(
        license=manifest.licence.lower(),
        library_name="tdsnn-zoo",
        pipeline_tag=_TASK,
        tags=[*spiking, *topographic, "neuroscience", _TASK, manifest.architecture],
        datasets=None if dataset.repo is None else [dataset.repo],
        metrics=["accuracy"] if results else None,
        model_name=manifest.name if results else None,
        eval_results=results or None,
    )


def _evaluation(dataset_repo: str | None, found: Sequence[Score]) -> str:
    if dataset_repo is None or not found:
        return ""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # not listed

    entries = [
        EvalResultEntry(
            dataset_id=dataset_repo,
            task_id=score.task,
            value=score.value,
            date=score.date,
            notes=f"{score.name}; {score.notes}",
        )
        for score in found
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
