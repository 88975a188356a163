"""``python -m tests.device_counts``: launches and waits of one training step and of one step of PGD.

Counted on the second device, on tiny networks: numbers of kernels hardly depend on sizes, only on the layers.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tdsnn import zoo
from tdsnn.attacks._base import configure
from tdsnn.manifest import resolve
from tdsnn.schema import Manifest
from tdsnn.training.loop import Trainer
from tdsnn.training.recipe import override
from tests.second_device import Ledger, second_device
from tests.training import SMALL, Quiet, make_split, small

MUON = "optimizer=muon"
_WITHOUT_SPIKES = (
    *(one for one in SMALL if not one.startswith(("model.", "optimizer"))),
    *("model.width=8", MUON),
)
TRAININGS: dict[str, Callable[[], Manifest]] = {
    "training step, twin": lambda: small(MUON, name="sresnet18"),
    "training step, twin, AdamW, average": lambda: small("ema_decay=0.9", name="sresnet18"),
    "training step, STC": lambda: small(MUON),
    "training step, STC, under attack": lambda: small(MUON, "recipe.adversarial.eps_255=8"),
    "training step, TDANN": lambda: override(resolve("tdann18"), _WITHOUT_SPIKES),
    "training step, TopoLoss": lambda: override(
        resolve("toponet18"), [*_WITHOUT_SPIKES, "topography.factor_h=2", "topography.factor_w=2"]
    ),
}


@dataclass(frozen=True)
class Step:
    """What one step asks of the device."""

    launches: int
    waits: int
    lines: Counter[tuple[str, str]]
    """(why, line) of the waits."""


def training(name: str) -> Step:
    """One step of a training of :data:`TRAININGS`, not the first, which also measures shares of gradients."""
    with second_device() as ledger, tempfile.TemporaryDirectory() as folder:
        split = make_split()
        trainer = Trainer(
            TRAININGS[name](),
            folder=Path(folder),
            train=split,
            held_out=split,
            device=torch.device("cuda", 0),
        )
        return _between(ledger, Quiet(), trainer)


def _between(ledger: Ledger, quiet: Quiet, trainer: Trainer) -> Step:
    """What the second step adds."""
    before: list[tuple[tuple[int, int], Counter[tuple[str, str]]]] = []

    def note(_: dict[str, Any]) -> None:
        before.append((ledger.total(), ledger.waits.copy()))

    quiet.step = note  # type: ignore[method-assign]
    trainer.run(quiet, stop_after=3)
    (first, lines), (second, more) = before[1:3]
    return Step(second[0] - first[0], second[1] - first[1], more - lines)


def attack(name: str, **settings: Any) -> Step:
    """One step of an attack with ``steps``, on images that fall one after the other."""
    few, many = (_attacked(name, steps=steps, **settings) for steps in (2, 6))
    launches, waits = ((after - before) / 4 for before, after in zip(few.total(), many.total(), strict=True))
    return Step(round(launches), round(waits), many.waits - few.waits)


def _attacked(name: str, **settings: Any) -> Ledger:
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with second_device() as ledger:
        model = zoo.load("tsresnet18", device="cuda:0")
        x = images.to("cuda:0")
        with torch.no_grad():
            y = model(x).argmax(1)
        ledger.launches.clear()
        ledger.waits.clear()
        configure(name, **settings).perturb(model, x, y, eps=2 / 255, indices=range(len(x)))
    return ledger


STEPS: dict[str, Callable[[], Step]] = {
    **{name: lambda name=name: training(name) for name in TRAININGS},  # type: ignore[misc]
    "PGD step": lambda: attack("pgd"),
}


def main(names: list[str]) -> None:
    """Print the table, and where the waits are."""
    for name in names or STEPS:
        found = STEPS[name]()
        sys.stdout.write(f"{name:40} {found.launches:6} launches {found.waits:4} waits\n")
        for (why, line), count in found.lines.most_common():
            sys.stdout.write(f"    {count:4}  {line}: {why}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
