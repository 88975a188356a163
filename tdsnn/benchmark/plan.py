"""What one benchmark run measures: models, images, attacks and strengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from msgspec import structs
from numpy.typing import NDArray
from torch import Tensor

from tdsnn import paths
from tdsnn.attacks._base import check_eps
from tdsnn.attacks._spec import AttackSpec
from tdsnn.benchmark.suites import NamedSuite
from tdsnn.data._base import DATASETS, Split
from tdsnn.errors import UsageError
from tdsnn.files import digest_of
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS
from tdsnn.result_folder import ResultFolder
from tdsnn.results import SCHEMA
from tdsnn.runtime import code_digest, machine
from tdsnn.table import FIRST_IMAGES
from tdsnn.tasks._base import TASKS, Task
from tdsnn.temporal._base import TimeMetric

_NUMERIC_PARTS = (
    *("attacks", "benchmark", "data", "kernels", "metrics", "models", "tasks", "topography"),
    *("evaluation.py", "results.py", "runtime.py", "stats.py", "weights.py", "zoo.py"),
)
"""Code that can change a score; an edit elsewhere keeps finished cells valid."""
_TIMED_PARTS = (*_NUMERIC_PARTS, "temporal", "inference.py")
"""Code that can change what a time metric finds."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of a benchmark."""

    name: str
    model: Model | Adapted
    checkpoint_sha256: str
    source: str
    """``embedded``, ``cache``, ``hub``, ``path`` or ``memory``."""
    twin: str | None = None
    """Name of the non-topographic model with the same recipe; None for a model that has none."""
    adversarially_trained: bool = False
    """Whether it was trained with attacks, so that survivors are nothing strange."""
    alone: str | None = None
    """Why a model that may be topographic stands beside no twin, one sentence."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a run, besides the models."""

    dataset: str
    split: Split
    n: int
    """The first n images of the split are used."""
    selection: str = FIRST_IMAGES
    """Which images of the dataset these are."""
    attacks: tuple[AttackSpec, ...]
    seed: int = 0
    batch_size: int = 100
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    suite: NamedSuite | None = None
    """Where the attacks and metrics are from."""
    metrics: tuple[TimeMetric, ...] = ()
    """What is measured of how the models answer in time."""

    def __post_init__(self) -> None:
        available = len(self.split.labels)
        if not 1 <= self.n <= available:
            raise UsageError(
                f"The number of images must lie in 1..{available} for the test split of {self.dataset}, "
                f"not {self.n}.",
                hint=f"For example --n {min(1000, available)}.",
            )
        if self.batch_size < 1:
            raise UsageError(f"The batch size must be at least 1, not {self.batch_size}.")
        values = self.split.images[0].size
        for spec in self.attacks:
            for strength in spec.strengths:
                check_eps(spec.eps(strength), norm=spec.norm, values=values)

    @property
    def task(self) -> Task:
        """What the models have learned, and how their answers are scored."""
        return TASKS.load(self.split.task)

    def attack_order(self) -> Iterator[tuple[AttackSpec, float]]:
        """Every attack with every strength: first attacks on all images, each with all its strengths; then
        those on survivors, from the smallest strength on, so that what falls early costs nothing later."""
        for spec in self.attacks:
            if not spec.survivors_only:
                yield from ((spec, strength) for strength in spec.strengths)
        late = [spec for spec in self.attacks if spec.survivors_only]
        for strength in sorted({strength for spec in late for strength in spec.strengths}):
            yield from ((spec, strength) for spec in late if strength in spec.strengths)

    def survivors(self, scores: NDArray[Any]) -> int:
        """How many of the samples have more than the lowest score."""
        return int((scores > self.task.floor).sum())

    def batches(self) -> list[range]:
        """Dataset indices in batches."""
        return [
            range(start, min(start + self.batch_size, self.n)) for start in range(0, self.n, self.batch_size)
        ]

    def load(self, indices: range) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and classes (N,) on the device."""
        images, labels = self.split.take(slice(indices.start, indices.stop))
        return images.to(self.device), labels.to(self.device)

    def settings(self) -> dict[str, Any]:
        """Everything that was asked for, as JSON values."""
        return {
            "dataset": self.dataset,
            "split": "test",
            "data_digest": self.split.digest,
            "n": self.n,
            "selection": self.selection,
            "order": "canonical" if self.split.canonical else "as given",
            "seed": self.seed,
            "batch_size": self.batch_size,
            "dtype": "float32",
            "task": self.split.task,
            **self._suite_settings(),
            "attacks": [
                {
                    "attack": spec.name,
                    "variant": spec.variant,
                    "eps_255": strength,
                    "norm": spec.norm,
                    "settings": spec.settings,
                    **({"on": "survivors"} if spec.survivors_only else {}),
                }
                for spec, strength in self.attack_order()
            ],
            **self._metric_settings(),
        }

    def _suite_settings(self) -> dict[str, Any]:
        if self.suite is None:
            return {}
        named = self.suite
        return {
            "suite": {"name": named.name, "sha256": named.sha256, "official": named.official},
            "masking": None if named.suite.masking is None else structs.asdict(named.suite.masking),
        }

    def _metric_settings(self) -> dict[str, Any]:
        if not self.metrics:
            return {}
        return {
            "metrics": [
                {"metric": one.name, "variant": one.variant, "settings": one.settings} for one in self.metrics
            ]
        }

    def default_folder(self, entries: Sequence[ModelEntry]) -> ResultFolder:
        """Folder in the cache of this plan and these checkpoints; all plans share their cells."""
        asked = [self.settings(), [(entry.name, entry.checkpoint_sha256) for entry in entries]]
        bench = paths.cache_dir() / "bench"
        return ResultFolder(bench / digest_of(asked)[:16], cells=bench / "cells")


def cell_key(
    plan: Plan,
    entry: ModelEntry,
    spec: AttackSpec | None = None,
    strength: float = 0.0,
    *,
    before: NDArray[Any] | None = None,
) -> str:
    """Digest of everything that affects the scores of one cell; without an attack that of the clean cell.

    Args:
        before: scores (n,) that other attacks have left, if this one is spent on survivors only.
    """
    left = {} if before is None else {"before": hashlib.sha256(before.tobytes()).hexdigest()}
    return digest_of(
        left
        | {
            "schema": SCHEMA,
            "checkpoint": entry.checkpoint_sha256,
            "model": _model_identity(entry.model),
            "data": [plan.dataset, plan.split.digest, plan.n, plan.batch_size],
            "task": plan.split.task,
            "attack": None if spec is None else _attack_identity(spec, strength, plan.seed),
            "code": _code(_plug_ins(plan, entry.model, spec)),
            "machine": machine(plan.device),
        }
    )


def measurement_key(plan: Plan, entry: ModelEntry, metric: TimeMetric) -> str:
    """Digest of everything that affects the numbers of a time metric."""
    return digest_of(
        {
            "schema": SCHEMA,
            "checkpoint": entry.checkpoint_sha256,
            "model": _model_identity(entry.model),
            "data": [plan.dataset, plan.split.digest, plan.n, plan.batch_size],
            "metric": [metric.name, metric.settings, plan.seed],
            "code": _code(_plug_ins(plan, entry.model) | metric.modules, parts=_TIMED_PARTS),
            "machine": machine(plan.device),
        }
    )


@cache
def _code(plug_ins: frozenset[str], parts: tuple[str, ...] = _NUMERIC_PARTS) -> str:
    # Once for all cells: what runs is the code that was imported, whatever becomes of its files meanwhile.
    return code_digest(parts=parts, plug_ins=plug_ins)


def _plug_ins(plan: Plan, model: Model | Adapted, spec: AttackSpec | None = None) -> frozenset[str]:
    """Modules that model, attack, task and dataset are from, this project's own among them."""
    found = {type(layer).__module__ for layer in model.modules()} | {type(plan.task).__module__}
    if model.architecture in MODELS.names():
        found.add(MODELS.module(model.architecture))
    if plan.dataset in DATASETS.names():
        found.add(DATASETS.module(plan.dataset))
    return frozenset(found | ({type(spec.attack).__module__} if spec else set()))


def _model_identity(model: Model | Adapted) -> Mapping[str, Any]:
    return {
        "architecture": model.architecture,
        "arguments": model.arguments,
        "timesteps": model.timesteps,
        "compiled": sorted({layer.compiled for layer in model.neurons}),
    }


def _attack_identity(spec: AttackSpec, strength: float, seed: int) -> Mapping[str, Any]:
    inputs = dict(spec.attack.inputs)  # files are looked for and hashed, so once
    return {
        "attack": spec.name,
        "settings": spec.settings,
        "eps_255": strength,
        "norm": spec.norm,
        "seed": seed,
        **({"inputs": inputs} if inputs else {}),
    }
