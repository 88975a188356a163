"""A benchmark, or a comparison over seeds, in one call. Names are checked before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tdsnn.errors import UsageError
from tdsnn.progress import Note, Progress, counted, silent, unheard

if TYPE_CHECKING:
    from tdsnn.benchmark.plan import ModelEntry, Plan
    from tdsnn.benchmark.seeds import SeedComparison
    from tdsnn.benchmark.suites import NamedSuite
    from tdsnn.results import Result
    from tdsnn.verdicts import CleanVerdicts

__all__ = ["DEFAULT_ATTACKS", "DEFAULT_MODELS", "Benchmark", "bench", "compare", "prepare"]

Name = str | os.PathLike[str]
One = TypeVar("One", str, str | float, str | os.PathLike[str])

DEFAULT_MODELS = ("tsresnet18",)
DEFAULT_ATTACKS = ("pgd",)
COMPILE_FROM = 10_000
"""Gradients from which on compiling the spiking layers takes less time than it saves."""


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
    attacks: str | Sequence[str] = (),
    eps: str | float | Sequence[str | float] = (),
    suite: Name | None = None,
    n: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
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
        attacks: each ``NAME`` or ``NAME:KEY=VALUE,...``, e.g. ``"pgd:steps=20,eps=8/255"``; by default pgd.
        eps: strengths of attacks that state none, in units of 1/255: ``8`` or ``"8/255"``; by default the
            attack's own.
        suite: an official suite, or a file of one's own by its path, in place of ``attacks``, ``eps`` and
            ``steps``; see :mod:`tdsnn.benchmark.suites`.
        n: number of test images, from the first on; by default 1,000, or the suite's.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        seed: of random starts and noise; by default 0, or the suite's.
        batch_size: images at a time, at least 1; by default 100, or the suite's.
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
        suite=suite,
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
    suite: Name | None,
    n: int | None,
    device: str,
    seed: int | None,
    batch_size: int | None,
    steps: int | None,
    out: str | Path | None,
    note: Note,
) -> Benchmark:
    """Check what :func:`bench` was asked for, cheap things first, and load models and images."""
    # Before anything that imports torch: a mistyped name is answered at once.
    from tdsnn.benchmark.names import with_twins

    twins = with_twins([os.fspath(name) for name in _several(models)])
    named = None if suite is None else _suite(suite, unused=(attacks, eps, steps))

    from tdsnn.attacks._spec import attack_specs
    from tdsnn.benchmark.entries import compile_entries, load_entries
    from tdsnn.benchmark.plan import Plan
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE
    from tdsnn.runtime import choose_device

    if named is None:
        specs = attack_specs(_several(attacks) or DEFAULT_ATTACKS, eps=_several(eps), steps=steps)
    else:
        specs = tuple(
            replace(spec, survivors_only=one.on == "survivors")
            for one in named.suite.attacks
            for spec in attack_specs([one.attack], eps=named.suite.eps)
        )
    target = choose_device(device)
    loaded = load_entries(tuple(twins), device=target, twins=twins)
    plan = Plan(
        dataset=loaded.dataset,
        split=load_split(loaded.dataset, "test"),
        n=_given(n, named.suite.n if named else 1000),
        attacks=specs,
        seed=_given(seed, named.suite.seed if named else 0),
        batch_size=_given(batch_size, named.suite.batch_size if named else 100),
        device=target,
        suite=named,
    )
    gradients = sum(len(spec.strengths) * int(spec.settings.get("steps", 1)) for spec in specs)
    if named is not None or plan.n * gradients * len(twins) >= COMPILE_FROM:
        note(NOTICE)
        compile_entries(loaded.entries, device=target)
    folder = Path(out) if out is not None else plan.default_folder(loaded.entries)
    return Benchmark(plan=plan, entries=loaded.entries, folder=folder)


def _suite(suite: Name, *, unused: tuple[object, ...]) -> NamedSuite:
    from tdsnn.benchmark.suites import read_suite

    if any(given not in ((), [], None) for given in unused):
        raise UsageError(
            "A suite says itself which attacks it makes, and how strong.",
            hint="Leave out the attacks, eps and steps, or the suite.",
        )
    return read_suite(suite)


def _given(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


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
