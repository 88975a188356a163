"""Checks that a model and an attack must pass before any number about them is given.

Each gate measures one thing on a few images and compares it with a fixed limit; a violation is a GateError
(exit code 5) that says which gate, what was measured and what was allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._gradient import finite, inference
from tdsnn.errors import GateError
from tdsnn.tasks._base import Task
from tdsnn.tasks.classification import CLASSIFICATION

MAX_GAP = 0.01
"""Mean relative distance of logits between batch compositions: a few flipped spikes, no mixing of images."""
MAX_FLIPS = 0.02
"""Share of verdicts that may differ between batch compositions, but at least one image may."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One passed check."""

    name: str
    measured: float
    limit: float
    """The largest value that passes."""
    unit: str


def _gate(name: str, measured: float, limit: float, unit: str, reason: str) -> Gate:
    if not measured <= limit:
        raise GateError(
            f"The gate '{name}' refused the model: {measured:g} {unit}, limit {limit:g}. {reason}"
        )
    return Gate(name=name, measured=measured, limit=limit, unit=unit)


def check_model(model: nn.Module, x: Tensor, *, num_classes: int) -> list[Gate]:
    """Bounds, repetition and independence of the batch, on images ``x`` (N, C, H, W) in [0, 1], N >= 2.

    Raises:
        GateError: images that it does not take, logits not finite or of another shape, or state carried
            between calls or images.
    """
    with inference(model), torch.no_grad():
        return [
            _check_bounds(model, x, num_classes),
            *_check_state(model, x),
        ]


def check_attack(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    indices: Sequence[int],
    seed: int,
    norm: str | None = None,
    task: Task = CLASSIFICATION,
) -> list[Gate]:
    """Determinism at ``eps``, and no effect at eps 0, on images ``x`` (N, C, H, W) with classes ``y``.

    Raises:
        GateError: two runs differ, a candidate leaves the ball, or eps 0 changes a verdict.
    """
    run = partial(attack.perturb, model, x, y, indices=indices, seed=seed, norm=norm, task=task)
    first, second, control = run(eps=eps), run(eps=eps), run(eps=0.0)
    return [
        _gate(
            f"determinism of {attack.name}",
            float((first.x_adv - second.x_adv).abs().max()),
            0.0,
            "pixel range",
            "Two runs with one seed differ.",
        ),
        _gate(
            f"eps 0 of {attack.name}",
            int((control.robust != control.clean).sum()),
            0,
            "verdicts",
            "An attack of no strength changes the accuracy.",
        ),
    ]


def _check_bounds(model: nn.Module, x: Tensor, num_classes: int) -> Gate:
    """Finite logits (N, K) on the images and on both ends of the pixel range."""
    batch = torch.cat([x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])])
    try:
        logits = finite(model(batch), "logits")
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # shapes that a layer does not take
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise GateError(
            f"The gate 'bounds' refused the model: it takes no images {tuple(x.shape[1:])}: {reason}."
        ) from error
    if logits.shape != (len(batch), num_classes):
        raise GateError(
            f"The gate 'bounds' refused the model: logits of shape {tuple(logits.shape)}, "
            f"not {(len(batch), num_classes)}."
        )
    return Gate(name="bounds", measured=0.0, limit=0.0, unit="logits not finite")


def _check_state(model: nn.Module, x: Tensor) -> list[Gate]:
    base = model(x)
    again = model(x)
    order = torch.arange(len(x) - 1, -1, -1, device=x.device)
    halves = torch.tensor_split(x, 2)
    variants: dict[str, Callable[[], Tensor]] = {
        "permuted batch": lambda: model(x[order])[order],
        "half batches": lambda: torch.cat([model(half) for half in halves]),
    }
    gates = [
        _gate(
            "same batch twice",
            float((base - again).abs().max()),
            0.0,
            "logit",
            "Something is remembered between calls; the model must reset itself.",
        )
    ]
    for name, run in variants.items():
        other = run()
        gap = float(((other - base).norm(dim=1) / base.norm(dim=1).clamp(min=1e-12)).mean())
        flips = int((other.argmax(1) != base.argmax(1)).sum())
        reason = "The images of a batch influence each other."
        gates.append(_gate(f"{name}, logits", gap, MAX_GAP, "mean relative distance", reason))
        allowed = max(1, int(MAX_FLIPS * len(x)))
        gates.append(_gate(f"{name}, verdicts", flips, allowed, "verdicts", reason))
    return gates
