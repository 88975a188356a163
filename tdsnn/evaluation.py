"""How well a network answers images: the one pass over a split that gives scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.attacks._gradient import inference, respond
from tdsnn.data._base import Split
from tdsnn.progress import Progress, silent
from tdsnn.runtime import deterministic
from tdsnn.tasks._base import Task

Judge = Callable[[NDArray[np.int64], Tensor, Tensor], Tensor]
"""``judge(rows, x, y)``: scores (N,) on images x (N, C, H, W) with targets y (N,), which are these rows of a
split."""


def clean_scores(model: nn.Module, x: Tensor, y: Tensor, *, task: Task) -> Tensor:
    """Scores (N,) of a batch without attack; the model is left in the mode it was found in.

    Raises:
        GateError: an output is NaN or infinite.
    """
    with inference(model):
        return task.score(respond(model, x), y)


def clean(model: nn.Module, task: Task) -> Judge:
    """:func:`clean_scores` of one model, for :func:`evaluate`."""
    return lambda _, x, y: clean_scores(model, x, y, task=task)


def evaluate(
    judge: Judge,
    split: Split,
    *,
    device: torch.device,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    batch_size: int = 250,
    progress: Progress = silent,
) -> NDArray[np.generic]:
    """Scores (n,) on images of a split, in full precision.

    Args:
        rows: which images, at least one; all by default.
        progress: called with images done and images in all.
    """
    chosen = np.arange(len(split.labels)) if rows is None else np.asarray(rows)
    found = []
    with deterministic():
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            images, targets = split.take(batch)
            x = images.to(device).contiguous(memory_format=torch.channels_last)
            found.append(judge(batch, x, targets.to(device)).cpu().numpy())
            progress(start + len(batch), len(chosen))
    return np.concatenate(found)
