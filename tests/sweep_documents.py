"""Documents of sweeps as ``tdsnn-zoo sweep --release`` writes them, with numbers of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdsnn.results import accuracy_figure
from tdsnn.schema import plain

N = 10_000
TOPO, TWIN = "tsresnet18.fashion_mnist", "sresnet18.fashion_mnist"
LAYERS = ("layer1.0", "layer4.1")


def record(
    label: str,
    right: int,
    *,
    seed: int = 0,
    entry: str = TOPO,
    rates: Sequence[float | None] = (0.1, 0.3),
    smooth: Sequence[float] | None = None,
    settings: Sequence[str] = (),
    minutes: float = 30.0,
    n: int = N,
) -> dict[str, Any]:
    """One run with ``right`` of ``n`` held-out images; ``rates`` and ``smooth`` by layer."""
    return {
        "run": f"{entry}-s{seed}+{label}",
        "entry": entry,
        "seed": seed,
        "label": label,
        "settings": list(settings),
        "held_out_accuracy": plain(accuracy_figure(right, n)),
        "alignment": {"rate": dict(zip(LAYERS, rates, strict=True)), "timing": {}},
        "category_smoothness": None if smooth is None else dict(zip(LAYERS, smooth, strict=True)),
        "cpu_seconds": 60 * minutes,
        "weights_sha256": "0" * 64,
        "environment": {},
    }


def group(label: str, rights: Mapping[int, int], **settings: Any) -> list[dict[str, Any]]:
    """One run for each seed of ``rights``."""
    return [record(label, right, seed=seed, **settings) for seed, right in rights.items()]


def write(path: Path, *groups: Sequence[Mapping[str, Any]], sweep: str = "strengths") -> Path:
    """The document of all runs, in the given order."""
    document = {
        "schema": 1,
        "sweep": sweep,
        "summary": "Strengths.",
        "runs": [run for runs in groups for run in runs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
