"""What one benchmark run measures: models, images, attacks and strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdsnn import paths
from tdsnn.attacks._base import Attack, configure, source_file
from tdsnn.data._base import Split
from tdsnn.errors import UsageError
from tdsnn.models._base import Model
from tdsnn.results import SCHEMA, digest_of
from tdsnn.runtime import code_digest, machine

_NUMERIC_PARTS = (
    *("attacks", "bench", "data", "kernels", "metrics", "models", "topography"),
    *("results.py", "runtime.py", "stats.py", "weights.py", "zoo.py"),
)
"""Code that can change a verdict; an edit elsewhere keeps finished cells valid."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model of a benchmark."""

    name: str
    model: Model
    checkpoint_sha256: str
    source: str
    """``embedded``, ``cache``, ``hub`` or ``path``."""
    twin: str | None = None
    """Name of the non-topographic model with the same recipe; None for a model that has none."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One attack with one strength."""

    attack: Attack
    eps_255: float
    """In units of 1/255."""

    @property
    def eps(self) -> float:
        """Strength in units of the pixel range."""
        return self.eps_255 / 255

    @property
    def norm(self) -> str | None:
        """Distance that the strength is a radius in; None for noise."""
        return self.attack.norms[0] if self.attack.norms else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a run, besides the models."""

    dataset: str
    split: Split
    n: int
    """The first n images of the test split are used."""
    strikes: tuple[Strike, ...]
    seed: int = 0
    batch_size: int = 100
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

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
            "selection": "first n images of the split",
            "seed": self.seed,
            "batch_size": self.batch_size,
            "dtype": "float32",
            "attacks": [
                {"attack": s.attack.name, "eps_255": s.eps_255, "norm": s.norm, "settings": s.attack.settings}
                for s in self.strikes
            ],
        }

    def default_folder(self, subjects: Sequence[Subject]) -> Path:
        """Folder in the cache that belongs to this plan and these checkpoints."""
        asked = [self.settings(), [(s.name, s.checkpoint_sha256) for s in subjects]]
        return paths.cache_dir() / "bench" / digest_of(asked)[:16]


def make_strikes(
    names: Sequence[str], *, eps_255: Sequence[float] = (), steps: int | None = None
) -> tuple[Strike, ...]:
    """Every attack with every strength; without strengths, each attack's own default sweep.

    Args:
        names: registered attacks; repeated ones count once.
        eps_255: strengths in units of 1/255, 0 to 255.
        steps: steps of the iterative attacks among them.

    Raises:
        UsageError: unknown attack, a strength out of range, or ``steps`` without an iterative attack.
    """
    for eps in eps_255:
        if not 0 <= eps <= 255:
            raise UsageError(
                f"A strength must lie in 0..255 (units of 1/255), not {eps:g}.", hint="For example --eps 8."
            )
    plain = {name: configure(name) for name in names}
    iterative = {name for name, attack in plain.items() if "steps" in attack.settings}
    if steps is not None and not iterative:
        raise UsageError(f"None of the attacks {', '.join(plain)} takes steps.", hint="Leave out --steps.")
    attacks = [configure(name, steps=steps) if name in iterative else plain[name] for name in plain]
    return tuple(
        Strike(attack=attack, eps_255=eps)
        for attack in attacks
        for eps in sorted(set(eps_255 or attack.default_eps_255))
    )


def cell_key(plan: Plan, subject: Subject, strike: Strike | None) -> str:
    """Digest of everything that affects the verdicts of one cell; no strike is the clean cell."""
    extra = [] if strike is None else [source_file(strike.attack)]
    return digest_of(
        {
            "schema": SCHEMA,
            "checkpoint": subject.checkpoint_sha256,
            "model": _model_identity(subject.model),
            "data": [plan.dataset, plan.split.digest, plan.n, plan.batch_size],
            "strike": None if strike is None else _strike_identity(strike, plan.seed),
            "code": code_digest(parts=_NUMERIC_PARTS, extra=extra),
            "machine": machine(plan.device),
        }
    )


def _model_identity(model: Model) -> Mapping[str, Any]:
    return {
        "architecture": model.architecture,
        "arguments": model.arguments,
        "timesteps": model.timesteps,
        "compiled": sorted({layer.compiled for layer in model.neurons}),
    }


def _strike_identity(strike: Strike, seed: int) -> Mapping[str, Any]:
    return {
        "attack": strike.attack.name,
        "settings": strike.attack.settings,
        "eps_255": strike.eps_255,
        "norm": strike.norm,
        "seed": seed,
    }
