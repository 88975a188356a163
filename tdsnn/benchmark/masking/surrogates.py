"""Tests of what gradients are taken through: other surrogates, adaptive ones, and other networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.benchmark.gradients import has_spikes
from tdsnn.benchmark.masking._base import Finding, Probe, judged, not_made, percent
from tdsnn.errors import GateError
from tdsnn.results import Figure
from tdsnn.stats import PairedDifference
from tdsnn.tasks._base import Task

SURROGATES = ("atan-1", "atan-4", "atan-16", "triangle-1", "sigmoid-4", "straight-through", "bptr")
"""Beside the one of training."""
NO_SPIKES = "The network has no spikes, so its gradient is the exact one."
MAX_SPREAD = 0.02
"""Share of images by which another surrogate may fool more than the one of training."""
MAX_ADAPTIVE_GAP = 0.03
"""Share of images by which an adaptive surrogate may fool more than the one of training."""
MAX_TRANSFER_SHARE = 0.01
"""Share of images that another network's gradients may fool where the model's own failed."""


def surrogates_agree(probe: Probe) -> Finding:
    """M13: no other surrogate fools many more images than the one of training.

    A warning only: the worst case of a suite is over several surrogates, so it is what the surrogate of
    training alone would have said that is masked.
    """
    title, steps = "surrogates agree", probe.budget.steps
    if not has_spikes(probe.model):
        return not_made("M13", title, NO_SPIKES)
    trained = probe.survivors(f"apgd:steps={steps}")
    shares, missing = {}, ""  # a network of another library takes some of them only
    for name in SURROGATES:
        try:
            shares[name] = float(probe.survivors(f"apgd:steps={steps},surrogate={name}").mean())
        except GateError as error:
            missing = error.message
    if not shares:
        return not_made("M13", title, missing)
    best = min(shares, key=lambda name: shares[name])
    gap = float(trained.mean()) - shares[best]
    return judged(
        "M13",
        title,
        figure=max(gap, 0.0),
        limit=max(MAX_SPREAD, 1 / len(trained)),
        unit="share of images",
        bad="warn",
        message=f"{percent(trained.mean())} of the images survive apgd at {probe.radius} through the "
        f"surrogate of training, {percent(shares[best])} through {best}.",
    )


def adaptive_surrogate_finds_no_more(probe: Probe) -> Finding:
    """M16: SA-PGD through the adaptive surrogate ASSG (Wang et al. 2026, arXiv:2512.22522) fools hardly more
    than APGD through the one of training. A warning only, as M13."""
    title, steps = "adaptive surrogate", probe.budget.steps
    if not has_spikes(probe.model):
        return not_made("M16", title, NO_SPIKES)
    trained = probe.survivors(f"apgd:steps={steps}")
    try:
        adaptive = probe.survivors(f"sapgd:steps={steps},surrogate=assg-0.425")
    except GateError as error:
        return not_made("M16", title, error.message)
    gap = float(trained.mean()) - float(adaptive.mean())
    return judged(
        "M16",
        title,
        figure=max(gap, 0.0),
        limit=max(MAX_ADAPTIVE_GAP, 1 / len(trained)),
        unit="share of images",
        bad="warn",
        message=f"{percent(trained.mean())} of the images survive apgd at {probe.radius}, "
        f"{percent(adaptive.mean())} SA-PGD through ASSG.",
    )


class _Unending(Task):
    """The task with a score that never falls, so that the ascent on a source network goes on to its end."""

    floor = 0.0

    def __init__(self, task: Task) -> None:
        self._task = task

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """That of the task."""
        return self._task.loss(outputs, targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Always above the lowest."""
        return torch.ones_like(targets, dtype=torch.bool)

    def chance(self, targets: NDArray[Any]) -> float:
        """That of the task."""
        return self._task.chance(targets)

    def figure(self, scores: NDArray[Any]) -> Figure:
        """That of the task."""
        return self._task.figure(scores)

    def compare(self, ours: NDArray[Any], theirs: NDArray[Any]) -> PairedDifference:
        """That of the task."""
        return self._task.compare(ours, theirs)


def others_find_no_more(probe: Probe) -> Finding:
    """M15: the gradients of other networks fool hardly an image that every attack left standing."""
    title = "transfer"
    if not probe.others:
        return not_made("M15", title, "There is no other network beside this one to attack from.")
    broken: dict[str, int] = {}
    for name, source in probe.others.items():
        attacked = replace(probe, model=source, task=_Unending(probe.task))
        outcome = attacked.attack(f"pgd:steps={probe.budget.steps}")
        fooled = probe.task.score(probe.outputs(outcome.x_adv), probe.y) <= probe.task.floor
        broken[name] = int((fooled.cpu().numpy() & probe.standing).sum())
    worst = max(broken, key=lambda name: broken[name])
    share = broken[worst] / len(probe.x)
    return judged(
        "M15",
        title,
        figure=share,
        limit=max(MAX_TRANSFER_SHARE, 1 / len(probe.x)),
        unit="share of images",
        message=f"pgd at {probe.radius} on {worst} fools {broken[worst]} of {int(probe.standing.sum())} "
        "images that every attack left standing.",
    )
