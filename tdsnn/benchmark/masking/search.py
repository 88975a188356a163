"""Tests of the search: that more of it finds nothing more, and that nothing found is lost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.masking._base import GREY_EPS_255, Finding, Probe, flat_grey, judged, not_made, percent

MAX_DROP = 0.01
"""Share of images that twice the steps or restarts may fool besides; but one image always may."""
WATCHED = 16
"""Images on which every iterate of an attack is looked at, one by one."""
LAST = 10
"""Iterations at the end of which nothing more should be gained."""
MAX_LATE_GAIN = 0.05
"""Gain of the loss in the last iterations, its whole gain being 1 (Pintor et al. 2022)."""


def more_steps_find_no_more(probe: Probe) -> Finding:
    """M5: twice the steps, or five times the starts, fool hardly an image more."""
    steps = probe.budget.steps
    base = probe.survivors(f"pgd:steps={steps}")
    longer = probe.survivors(f"pgd:steps={2 * steps}")
    again = probe.survivors(f"pgd:steps={steps},restarts=5")
    drop = max(int((base & ~longer).sum()), int((base & ~again).sum())) / len(base)
    return judged(
        "M5",
        "more steps find no more",
        figure=drop,
        limit=max(MAX_DROP, 1 / len(base)),
        unit="share of images",
        message=f"{percent(drop)} of the images survive pgd at {probe.radius} with {steps} steps, but not "
        f"with {2 * steps} or with 5 starts.",
    )


def chance_finds_no_more(probe: Probe) -> Finding:
    """M7: no random point of the ball fools where all attacks of the suite failed."""
    title, count = "chance finds no more", probe.budget.points
    places = torch.from_numpy(np.flatnonzero(probe.standing))
    if not len(places):
        return not_made("M7", title, f"No image is left at {probe.radius} that chance could find more of.")
    x, y, draws = probe.x[places], probe.y[places], probe.draws("M7")
    alive = torch.ones(len(places), dtype=torch.bool)
    for _ in range(count):
        # All are drawn, so that an image's points do not depend on what became of the others.
        moved = (x + probe.eps * draws.uniform(probe.x)[places]).clamp(0, 1)
        outputs = probe.outputs(moved[alive])
        alive[alive.clone()] = (probe.task.score(outputs, y[alive]) > probe.task.floor).cpu()
        if not alive.any():
            break
    hits = int((~alive).sum())
    return judged(
        "M7",
        title,
        figure=hits,
        limit=0,
        unit="images",
        message=f"{count} random points within {probe.radius} fool {hits} of {len(places)} images that every "
        "attack left standing.",
    )


def everything_falls_without_bounds(probe: Probe) -> Finding:
    """M9: where every image is allowed, no image survives."""
    left = int(probe.survivors(f"pgd:steps={probe.budget.steps},restarts=2", eps=1.0).sum())
    return judged(
        "M9",
        "everything falls without bounds",
        figure=left,
        limit=0,
        unit="images",
        message=f"{left} of {len(probe.x)} images survive pgd with any change allowed.",
    )


def nothing_survives_flat_grey(probe: Probe) -> Finding:
    """M8 at 128/255."""
    steps = probe.budget.steps
    right = probe.survivors(f"pgd:steps={steps}", eps=GREY_EPS_255 / 255)
    _, counts = torch.unique(probe.y, return_counts=True)
    return flat_grey(
        f"pgd:steps={steps} at {GREY_EPS_255:g}/255", float(right.mean()), float(counts.max()) / len(right)
    )


class _Watched(nn.Module):
    """The model, with the outputs of every call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        self.outputs.append(found.detach())
        return found


def nothing_found_is_lost(probe: Probe) -> tuple[Finding, Finding]:
    """M10: an image that some iterate fooled is not called robust. M11: the last iterations gain nothing."""
    steps, lost, gains = probe.budget.steps, 0, []
    (spec,) = attack_specs([f"pgd:steps={steps}"], eps=[1])
    count = min(WATCHED, len(probe.x))
    for k in range(count):
        watched, y = _Watched(probe.model), probe.y[k : k + 1]
        outcome = spec.attack.perturb(
            watched,
            probe.x[k : k + 1],
            y,
            eps=probe.eps,
            indices=probe.indices[k : k + 1],
            seed=probe.seed,
            task=probe.task,
        )
        scores = torch.cat([probe.task.score(one, y) for one in watched.outputs])
        if not bool(outcome.robust > probe.task.floor):
            continue
        lost += bool((scores <= probe.task.floor).any())
        # The first pass is of the image itself, the last is the verdict.
        losses = torch.cat([probe.task.loss(one, y) for one in watched.outputs[1:-1]])
        best = losses.cummax(0).values
        span = float(best[-1] - best[0])
        if len(best) > LAST and span > 0:
            gains.append(float(best[-1] - best[-1 - LAST]) / span)
    silent = judged(
        "M10",
        "nothing found is lost",
        figure=lost,
        limit=0,
        unit="images",
        message=f"Of {count} images {lost} were fooled by an iterate of pgd and called robust.",
    )
    title = "the search has ended"
    if not gains:
        reason = "No image is left of which one could see how its loss went on."
        return silent, not_made("M11", title, reason)
    late = float(np.mean(gains))
    return silent, judged(
        "M11",
        title,
        figure=late,
        limit=MAX_LATE_GAIN,
        unit="share of the loss gained",
        message=f"The last {LAST} of {steps} iterations of pgd add {percent(late)} of the loss gained "
        f"in all, mean over {len(gains)} images that survive.",
        bad="warn",
    )
