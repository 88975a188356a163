"""A model as a file of another format, in one call, with a proof that it answers the same."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import tdsnn
from tdsnn import certificates, manifest, naming, paths, zoo
from tdsnn.certificates import LOGITS_BAR, Certificate, ExportedFile, Latency, OwnPaths
from tdsnn.data._base import DATASETS, Split, load_split
from tdsnn.errors import GateError, IntegrityError, MissingError, UsageError
from tdsnn.exporting.formats._base import FORMATS, Exporter, Metadata
from tdsnn.exporting.latency import latency
from tdsnn.exporting.program import trace
from tdsnn.exporting.verification import BATCH, Agreement, own_paths
from tdsnn.files import atomic, file_error, require_free, sha256_of
from tdsnn.models._adapted import adapt
from tdsnn.models._base import Model
from tdsnn.progress import Progress, silent
from tdsnn.runtime import environment

__all__ = ["Export", "export", "verify"]

MOST_TIMESTEPS = 64
"""Steps are unrolled: twice the longest sequence of the paper (30) is a graph of some thousand nodes."""
_SPLIT = "test"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "nir")


@dataclass(frozen=True, kw_only=True)
class Export:
    """An exported file."""

    path: Path
    metadata: Metadata
    certificate: Certificate | None
    """Of a verified file."""


def export(
    model: str | os.PathLike[str] | Model,
    *,
    format: str,
    out: str | os.PathLike[str],
    timesteps: int | None = None,
    verify: bool = False,
    n: int = 1000,
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Write a model as a file that runs without this package.

    The file takes images (N, C, H, W), float32 in [0, 1], N at will, and gives logits (N, K), the mean over
    the time steps (NIR: those of each step). Before it gets its name it is read back, and must answer two
    images as the model does.

    Args:
        model: as for :func:`tdsnn.load`, or a model in memory that knows its dataset.
        format: ``onnx``, ``nir`` or ``torch-export``, or one of a plug-in.
        out: the file.
        timesteps: T, 1 to 64; None is the model's own.
        verify: compare logits, classes and all spikes on test images, time both, and write
            ``OUT.certificate.json``.
        n: test images for that, the first ones in canonical order.
        force: replace files of these names.
        progress: told how many images were compared.

    Raises:
        UsageError: an unknown name or format, a T or n out of range, files that exist, or a network that the
            format cannot express.
        MissingError: a package of the format, or the test images, are not here.
        IntegrityError: the file does not answer as the model does when it is read back; it is not kept.
        GateError: the verified file is not the model. It is kept, and the certificate says why.
    """
    exporter = _exporter(format)
    target = paths.expanded(os.fspath(out))
    _require_free(target, verify=verify, force=force)
    subject, metadata = _subject(model, timesteps)
    split = _test_images(metadata.dataset, n) if verify else None
    with atomic(target) as temporary:
        program = trace(subject, metadata.image_shape, exporter.unrolled(metadata.timesteps))
        temporary.write_bytes(exporter.encode(program, metadata))
        _read_back(exporter, temporary, target, subject, metadata)
    old = certificates.beside(target)
    with file_error(old):
        old.unlink(missing_ok=True)
    if split is None:
        return Export(path=target, metadata=metadata, certificate=None)
    certificate = _verify(target, format, subject, split, n, progress=progress)
    certificates.write(certificate, old)
    if certificate.failures:
        raise GateError(
            f"The file '{target}' {' and '.join(certificate.failures)}.", hint=f"Its certificate: {old}"
        )
    return Export(path=target, metadata=metadata, certificate=certificate)


def verify(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Model,
    *,
    format: str,
    n: int = 1000,
    progress: Progress = silent,
) -> Certificate:
    """Hold an exported file against a model on test images; its ``failures`` say where it is another one.

    Args:
        path: what :func:`export` wrote, maybe on another machine.
        model, format, n, progress: as there.

    Raises:
        UsageError, MissingError: as there.
        IntegrityError: the file cannot be read, or is of other weights.
    """
    file = paths.expanded(os.fspath(path))
    if not file.is_file():
        raise MissingError(f"There is no file '{file}'.", hint="Export the model: tdsnn-zoo export --help")
    said = _exporter(format).read(file).metadata
    subject, metadata = _subject(model, said.timesteps)
    if said.weights_sha256 != metadata.weights_sha256:
        raise IntegrityError(
            f"'{file}' is of the weights {said.weights_sha256[:12]}, not of {metadata.weights_sha256[:12]}.",
            hint="Export the model again.",
        )
    return _verify(file, format, subject, _test_images(metadata.dataset, n), n, progress=progress)


def _exporter(format: str) -> Exporter:
    exporter = FORMATS.load(format.replace("-", "_"))
    exporter.prepare()
    return exporter


def _require_free(target: Path, *, verify: bool, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"'{target}' is a folder.", hint="Name a file for --out.")
    wanted = (target, certificates.beside(target)) if verify else (target,)
    for path in wanted:
        if not force:
            require_free(path)


def _subject(model: str | os.PathLike[str] | Model, timesteps: int | None) -> tuple[Model, Metadata]:
    """The model on the CPU, and what is said about it."""
    if timesteps is not None and not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UsageError(
            f"The number of time steps must be 1 to {MOST_TIMESTEPS}, not {timesteps}.",
            hint="Leave out --timesteps for the model's own.",
        )
    if isinstance(model, Model):
        # A copy: it must be in eval mode on the CPU, and its times are those of compiled operators.
        found, name, licence = copy.deepcopy(model).cpu().float().eval(), model.architecture, ""
        sha256 = adapt(found).weights_sha256
    elif not isinstance(model, str | os.PathLike):
        raise UsageError(
            f"Exported is a model of the zoo or of its classes, not {type(model).__name__}.",
            hint="Write it as an architecture: class MyNet(tdsnn.models.Model)",
        )
    else:
        opened = zoo.open_model(model)
        found, name, sha256 = opened.model, opened.config.name, opened.weights_sha256
        meant = naming.parse(model)
        licence = manifest.resolve(meant).licence if isinstance(meant, str) else ""
    if found.dataset is None:
        raise UsageError(
            "A model in memory must know its dataset, whose classes and images the file is for.",
            hint='Say it: model.dataset = "cifar10"; known ones: tdsnn-zoo data list',
        )
    dataset = DATASETS.load(found.dataset)
    return found, Metadata(
        name=name,
        architecture=found.architecture,
        weights_sha256=sha256,
        timesteps=found.count_steps(timesteps),
        image_shape=dataset.shape,
        labels=dataset.classes,
        dataset=found.dataset,
        licence=licence,
        tdsnn_version=tdsnn.__version__,
    )


def _test_images(dataset: str, n: int) -> Split:
    split = load_split(dataset, _SPLIT)
    if not 1 <= n <= len(split.labels):
        raise UsageError(
            f"{dataset} has {len(split.labels):,} test images, so --n is 1 to that, not {n}.",
            hint="The default is 1,000.",
        )
    return split


def _read_back(exporter: Exporter, written: Path, target: Path, subject: Model, metadata: Metadata) -> None:
    """Refuse a file that says or answers something else than what went into it."""
    exported, agreement = exporter.read(written), Agreement()
    generator = torch.Generator().manual_seed(0)
    agreement.add(
        subject,
        exported,
        torch.rand(2, *metadata.image_shape, generator=generator),
        timesteps=metadata.timesteps,
    )
    # Relative to large logits: a network that was not trained may have them.
    bar = LOGITS_BAR * max(1.0, agreement.largest_logit)
    if exported.metadata != metadata or not agreement.worst_without_flips <= bar:
        raise IntegrityError(
            f"'{target}' would not be the model: read back, its logits differ by "
            f"{agreement.worst_without_flips:.1e} where no spike flips.",
            hint="Nothing was written. Please report it, with the output of tdsnn-zoo doctor.",
        )


def _verify(
    file: Path, format: str, subject: Model, split: Split, n: int, *, progress: Progress
) -> Certificate:
    exporter = _exporter(format)
    exported, agreement = exporter.read(file), Agreement()
    timesteps = exported.metadata.timesteps
    batches = [slice(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]
    for rows in batches:
        agreement.add(subject, exported, split.take(rows)[0], timesteps=timesteps)
        progress(agreement.images, n, "images compared")
    compiled = exporter.timed and subject.compile_operators()
    own: OwnPaths | None = None
    times: tuple[Latency, ...] = ()
    if compiled and subject.neurons:
        images = (split.take(rows)[0] for rows in batches)
        own = own_paths(subject, torch.cat(agreement.answers), images, timesteps=timesteps)
    if exporter.timed:
        times = latency(subject, exported, split.take(batches[0])[0], timesteps=timesteps)
    here = environment(torch.device("cpu"))
    here["packages"] |= {name: version(name) for name in _PACKAGES if name in exporter.packages}
    return Certificate(
        name=exported.metadata.name,
        format=format.replace("_", "-"),
        file=ExportedFile(name=file.name, size=file.stat().st_size, sha256=sha256_of(file)),
        weights_sha256=exported.metadata.weights_sha256,
        timesteps=timesteps,
        dataset=exported.metadata.dataset,
        split=_SPLIT,
        data_digest=split.digest,
        n=n,
        runtime=exporter.runtime,
        largest_logit=agreement.largest_logit,
        worst_difference=agreement.worst_difference,
        worst_without_flips=agreement.worst_without_flips,
        other_classes=tuple(agreement.other_classes),
        flipped_images=agreement.flipped_images,
        own_paths=own,
        layers=agreement.layers,
        latency=times,
        compiled=compiled,
        provenance={**here, "created": datetime.now(UTC).isoformat(timespec="seconds")},
    )
