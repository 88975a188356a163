"""A benchmark in one call. Names are checked before torch is imported."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, TypeVar, cast

from tdsnn.benchmark.prepared import Benchmark
from tdsnn.errors import UsageError
from tdsnn.files import require_folder
from tdsnn.processes import own_device
from tdsnn.progress import Note, Progress, silent, unheard

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tdsnn.attacks._spec import AttackSpec
    from tdsnn.benchmark.names import Twin
    from tdsnn.benchmark.plan import ModelEntry
    from tdsnn.benchmark.suites import NamedSuite
    from tdsnn.data._base import Split
    from tdsnn.data._selection import Selection
    from tdsnn.results import Result
    from tdsnn.temporal._base import TimeMetric

__all__ = ["DEFAULT_ATTACKS", "DEFAULT_MODELS", "Benchmark", "bench", "prepare"]

Name = str | os.PathLike[str]
Data = str | os.PathLike[str] | tuple["NDArray[np.uint8]", "NDArray[np.int64]"]
One = TypeVar("One", bound=object)

DEFAULT_MODELS = ("tsresnet18",)
DEFAULT_ATTACKS = ("pgd",)
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
"""``package.module:function``; a repository of a Hub, ``hf:owner/name``, has a separator."""
COMPILE_FROM = 10_000
"""Gradients from which on compiling the spiking layers takes less time than it saves."""


def bench(
    models: Name | nn.Module | Sequence[Name | nn.Module] = DEFAULT_MODELS,
    *,
    data: Data | None = None,
    attacks: str | Sequence[str] = (),
    eps: str | float | Sequence[str | float] = (),
    metrics: str | Sequence[str] = (),
    suite: Name | None = None,
    n: int | None = None,
    selection: Selection = "first",
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
        models: zoo entries, checkpoint folders, ``hf:owner/name[@revision]``, networks
            (:func:`tdsnn.adapt`; any other module has to map images (N, C, H, W) in [0, 1] to outputs
            (N, K)), or ``package.module:function``, which makes one.
        data: whose test images: a registered dataset, a folder with one folder of images for each class,
            ``IMAGES.npy,LABELS.npy`` or two arrays, see :func:`tdsnn.data._own.open_test_split`; by default
            those that the zoo entries are for.
        attacks: each ``NAME`` or ``NAME:KEY=VALUE,...``, e.g. ``"pgd:steps=20,eps=8/255"``; by default pgd,
            or none if there are metrics.
        eps: strengths of attacks that state none, in units of 1/255: ``8`` or ``"8/255"``; by default the
            attack's own.
        metrics: of time, each ``NAME`` or ``NAME:KEY=VALUE,...``, e.g. ``"entropy:steps=own+10"``.
        suite: an official suite, or a file of one's own by its path, in place of ``attacks``, ``eps``,
            ``steps`` and ``metrics``; see :mod:`tdsnn.benchmark.suites`.
        n: number of test images; by default 1,000, or the suite's.
        selection: which ones: ``first``, in canonical order; ``random`` or ``random:SEED``; a file with one
            index on each line, or the indices.
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
        UsageError: a name, setting, number or folder that cannot be used, or models of different datasets.
        MissingError, IntegrityError: as :func:`tdsnn.load`, and of the test images.
    """
    return prepare(
        models,
        data=data,
        attacks=attacks,
        eps=eps,
        metrics=metrics,
        suite=suite,
        n=n,
        selection=selection,
        device=device,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        out=out,
        note=note,
    ).run(fresh=fresh, progress=progress)


def prepare(
    models: Name | nn.Module | Sequence[Name | nn.Module],
    *,
    data: Data | None = None,
    attacks: str | Sequence[str] = (),
    eps: str | float | Sequence[str | float] = (),
    metrics: str | Sequence[str] = (),
    suite: Name | None = None,
    n: int | None = None,
    selection: Selection = "first",
    device: str = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    beside_twins: bool = True,
    note: Note = unheard,
) -> Benchmark:
    """Check what :func:`bench` was asked for, cheap things first, and load models and images.

    Args:
        beside_twins: whether a topographic entry brings its twin.
    """
    # Before anything that imports torch: a mistyped name is answered at once.
    from tdsnn.benchmark.names import Twin, with_twins

    subjects = [one if _is_module(one) else os.fspath(cast(Name, one)) for one in _several(models)]
    foreign = [one for one in subjects if not isinstance(one, str) or _FACTORY.match(one)]
    names = [one for one in subjects if isinstance(one, str) and one not in foreign]
    twins = with_twins(names) if beside_twins else dict.fromkeys(names, Twin())
    if foreign and not twins and data is None:
        raise UsageError(
            "A network that is no entry of the zoo needs to be told its test images.",
            hint="For example --data cifar10, a folder with one folder of images for each class, or "
            "IMAGES.npy,LABELS.npy.",
        )
    named = None if suite is None else _suite(suite, unused=(attacks, metrics, eps, steps))
    if out is not None:
        require_folder(Path(out))

    from tdsnn.benchmark.entries import compile_entries
    from tdsnn.benchmark.plan import Plan
    from tdsnn.data._selection import selected
    from tdsnn.kernels.status import notice
    from tdsnn.result_folder import ResultFolder
    from tdsnn.runtime import choose_device
    from tdsnn.temporal._spec import time_metrics

    timed = time_metrics([one.metric for one in named.suite.metrics] if named else _several(metrics))
    specs = _specs(named, attacks or (() if timed else DEFAULT_ATTACKS), eps=eps, steps=steps)
    target = own_device(choose_device(device))
    entries, dataset, split = _load(twins, foreign, data, target)
    split, n, words = selected(split, selection, n=n, otherwise=named.suite.n if named else 1000)
    plan = Plan(
        dataset=dataset,
        split=split,
        n=n,
        selection=words,
        attacks=specs,
        seed=_given(seed, named.suite.seed if named else 0),
        batch_size=_given(batch_size, named.suite.batch_size if named else 100),
        device=target,
        suite=named,
        metrics=timed,
    )
    _check_metrics(timed, entries)
    gradients = sum(len(spec.strengths) * int(spec.settings.get("steps", 1)) for spec in specs)
    if twins and (named is not None or plan.n * gradients * len(twins) >= COMPILE_FROM):
        note(notice(target))
        compile_entries(entries)
    store = ResultFolder(Path(out)) if out is not None else plan.default_folder(entries)
    return Benchmark(plan=plan, entries=entries, store=store)


def _specs(
    named: NamedSuite | None,
    attacks: str | Sequence[str],
    *,
    eps: str | float | Sequence[str | float],
    steps: int | None,
) -> tuple[AttackSpec, ...]:
    from tdsnn.attacks._spec import attack_specs

    if named is None:
        if not attacks and (eps or steps is not None):
            raise UsageError(
                "Strengths and steps are those of attacks, and there is none.", hint="Add --attack pgd."
            )
        return attack_specs(_several(attacks), eps=_several(eps), steps=steps)
    return tuple(
        replace(spec, survivors_only=one.on == "survivors")
        for one in named.suite.attacks
        for spec in attack_specs([one.attack], eps=named.suite.eps)
    )


def _check_metrics(metrics: Sequence[TimeMetric], entries: Sequence[ModelEntry]) -> None:
    """Refuse settings that do not fit a model, before anything is measured."""
    for entry in entries:
        for metric in metrics:
            if metric.objection(entry.model) is None:
                metric.check(entry.model)


def _load(
    twins: Mapping[str, Twin],
    foreign: Sequence[str | nn.Module],
    data: Data | None,
    device: torch.device,
) -> tuple[list[ModelEntry], str, Split]:
    """All networks, and the name and test images of the dataset."""
    from tdsnn.benchmark.entries import load_entries, with_outputs
    from tdsnn.data._base import load_split

    entries: list[ModelEntry] = []
    if twins:
        loaded = load_entries(tuple(twins), device=device, twins=twins)
        entries = [*loaded.entries]
    if foreign:
        from tdsnn.benchmark.foreign import distinct, given, made_by

        made = [made_by(one) if isinstance(one, str) else given(one) for one in foreign]
        for entry in made:
            entry.model.to(device)
        entries = [*distinct([*entries, *made])]
    if data is None:
        return entries, loaded.dataset, load_split(loaded.dataset, "test")
    from tdsnn.data._own import open_test_split

    dataset, split = open_test_split(data)
    return entries, dataset, split if split.pinned else with_outputs(split, entries)


def _is_module(one: object) -> TypeGuard[nn.Module]:
    # A name is answered without torch; what is a module has imported it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(one, torch.nn.Module)


def _suite(suite: Name, *, unused: tuple[object, ...]) -> NamedSuite:
    from tdsnn.benchmark.suites import read_suite

    if any(given not in ((), [], None) for given in unused):
        raise UsageError(
            "A suite says itself which attacks it makes, how strong, and which metrics.",
            hint="Leave out the attacks, eps, steps and metrics, or the suite.",
        )
    return read_suite(suite)


def _given(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _several(given: One | Sequence[One]) -> Sequence[One]:
    """What may be given alone, as a sequence."""
    return given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
