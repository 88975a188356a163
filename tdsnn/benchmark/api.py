"""A benchmark, or a comparison over seeds, in one call. Names are checked before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tdsnn.progress import Note, Progress, counted, silent, unheard

if TYPE_CHECKING:
    from tdsnn.benchmark.plan import ModelEntry, Plan
    from tdsnn.benchmark.seeds import SeedComparison
    from tdsnn.results import Result
    from tdsnn.verdicts import CleanVerdicts

__all__ = ["DEFAULT_ATTACKS", "DEFAULT_MODELS", "Benchmark", "bench", "compare", "prepare"]

Name = str | os.PathLike[str]
One = TypeVar("One", str, str | float, str | os.PathLike[str])

DEFAULT_MODELS = ("tsresnet18",)
DEFAULT_ATTACKS = ("pgd",)
COMPILE_FROM = 1000
"""Attacked images from which on compiling the spiking layers takes less time than it saves."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark whose request was checked and whose models are loaded."""

    plan: Plan
    entries: Sequence[ModelEntry]
    folder: Path
    """For ``result.json``, ``samples.safetensors`` and finished batches."""

    def run(self, *, fresh: bool = False, progress: Progress = silent) -> Result:
        """Measure what is not in the folder yet, or with ``fresh`` everything.

        Raises:
            IntegrityError: a stored cell is damaged.
        """
        from tdsnn.benchmark.runner import run_bench, total_images
        from tdsnn.results import ResultFolder

        told = counted(progress, total_images(self.plan, self.entries))
        return run_bench(self.plan, self.entries, ResultFolder(self.folder), fresh=fresh, progress=told)


def bench(
    models: Name | Sequence[Name] = DEFAULT_MODELS,
    *,
    attacks: str | Sequence[str] = DEFAULT_ATTACKS,
    eps: str | float | Sequence[str | float] = (),
    n: int = 1000,
    device: str = "auto",
    seed: int = 0,
    batch_size: int = 100,
    steps: int | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: Progress = silent,
    note: Note = unheard,
) -> Result:
    """Accuracy without and under attack, each topographic model beside its twin on the same test images.

    Equal settings give equal numbers, those of ``tdsnn-zoo bench``. Finished batches are kept, so the call
    goes on where it was stopped. What a gate refuses is an error cell of the result, never a number.

    Args:
        models: zoo entries, checkpoint folders, or ``hf:owner/name[@revision]``.
        attacks: each ``NAME`` or ``NAME:KEY=VALUE,...``, e.g. ``"pgd:steps=20,eps=8/255"``.
        eps: strengths of attacks that state none, in units of 1/255: ``8`` or ``"8/255"``; by default the
            attack's own.
        n: number of test images, from the first on.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        seed: of random starts and noise.
        batch_size: images at a time, at least 1.
        steps: of attacks that state none.
        out: folder for the result; by default one of the cache that belongs to these settings.
        fresh: compute also what the folder has.
        progress: told how many images are done.
        note: told what takes long besides.

    Returns:
        The result; its text is its tables, ``document()`` what ``result.json`` says.

    Raises:
        UsageError: a name, setting or number that cannot be used, or models of different datasets.
        MissingError, IntegrityError: as :func:`tdsnn.load`, and of the test images.
    """
    return prepare(
        models,
        attacks=attacks,
        eps=eps,
        n=n,
        device=device,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        out=out,
        note=note,
    ).run(fresh=fresh, progress=progress)


def prepare(
    models: Name | Sequence[Name],
    *,
    attacks: str | Sequence[str],
    eps: str | float | Sequence[str | float],
    n: int,
    device: str,
    seed: int,
    batch_size: int,
    steps: int | None,
    out: str | Path | None,
    note: Note,
) -> Benchmark:
    """Check what :func:`bench` was asked for, cheap things first, and load models and images."""
    # Before anything that imports torch: a mistyped name is answered at once.
    from tdsnn.benchmark.names import with_twins

    twins = with_twins([os.fspath(name) for name in _several(models)])

    from tdsnn.attacks._spec import attack_specs
    from tdsnn.benchmark.entries import compile_entries, load_entries
    from tdsnn.benchmark.plan import Plan
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE
    from tdsnn.runtime import choose_device

    specs = attack_specs(_several(attacks), eps=_several(eps), steps=steps)
    target = choose_device(device)
    loaded = load_entries(tuple(twins), device=target, twins=twins)
    plan = Plan(
        dataset=loaded.dataset,
        split=load_split(loaded.dataset, "test"),
        n=n,
        attacks=specs,
        seed=seed,
        batch_size=batch_size,
        device=target,
    )
    if n * sum(len(spec.strengths) for spec in specs) * len(twins) >= COMPILE_FROM:
        note(NOTICE)
        compile_entries(loaded.entries, device=target)
    folder = Path(out) if out is not None else plan.default_folder(loaded.entries)
    return Benchmark(plan=plan, entries=loaded.entries, folder=folder)


def _several(given: One | Sequence[One]) -> Sequence[One]:
    """What may be given alone, as a sequence."""
    return given if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def compare(
    a: str, b: str | None = None, *, progress: Progress = silent, note: Note = unheard
) -> SeedComparison:
    """Two entries of the zoo over their seeds, on all test images and without attack.

    Stored verdicts are compared, so weights are needed only of a release that has none.

    Args:
        a: a full name, exactly that one; a bare name, the default variant and all its seeds; ``NAME-s*``, all
            seeds of that entry; or any other pattern of one entry's seeds.
        b: what it is compared with, named in the same way; by default the twins of ``a``.
        progress: told how many images are done, of networks that have to be measured.
        note: told what is left out, and what takes long.

    Returns:
        The comparison; its text is its tables, ``document()`` its plain values.

    Raises:
        UsageError: an unknown name, a pattern of several entries, other datasets, or no common seed.
        MissingError: nothing of it was released, or neither verdicts nor weights can be had.
        IntegrityError: a damaged release or verdicts, or verdicts on other images.
    """
    # Before anything that imports numpy: a mistyped name is answered at once.
    from tdsnn.benchmark.pairing import pair_seeds

    pairing = pair_seeds(a, b)
    if pairing.left_out:
        note(f"Left out, since the other model lacks that seed: {', '.join(pairing.left_out)}")

    from tdsnn.benchmark.seeds import compare_seeds, stored_verdicts

    known, lacking = stored_verdicts(pairing.releases)
    if lacking:
        known |= _measure(lacking, pairing.dataset, progress=progress, note=note)
    return compare_seeds(pairing, known)


def _measure(
    names: Sequence[str], dataset: str, *, progress: Progress, note: Note
) -> Mapping[str, CleanVerdicts]:
    import torch

    from tdsnn.benchmark.clean import clean_verdicts
    from tdsnn.benchmark.entries import load_entries
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE

    note(f"No stored verdicts of {', '.join(names)}: measured now, and kept in the cache.")
    test = load_split(dataset, "test")
    note(NOTICE)
    entries = load_entries(names, device=torch.device("cpu"), compiled=True).entries
    told = counted(progress, len(entries) * len(test.labels))
    return clean_verdicts(entries, dataset=dataset, test=test, progress=told)
