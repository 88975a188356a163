"""``torchrun streamed_processes.py FOLDER COUNT``: streamed trainings of several processes, some stopped.

The folder has a mirror of COUNT photographs. A signal comes to one process only, in the middle of an epoch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from tdsnn import manifest
from tdsnn.errors import GateError, Interrupted
from tdsnn.processes import is_main
from tdsnn.tasks._base import Task
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.training import loop
from tdsnn.training.loop import Trainer
from tdsnn.training.session import train
from tdsnn.training.state import STATE, load_state
from tests.shards import NAME, Mirror
from tests.training import SMALL

SETTINGS = (
    *SMALL,
    "topography.cluster_units=8",
    "topography.clusters=2",
    "augmentation=['resized_crop', 'flip', 'randaugment', 'mixup']",
    "ema_decay=0.5",
    "bn_batches=2",
)


def signalled(rank: int, number: int) -> None:
    """Train, and send this process a signal in its fourth step if it has this rank.

    Raises:
        Interrupted: in every process.
    """
    steps, whole_step = iter(range(1, 100)), Trainer._step

    def step(trainer: Trainer, chosen: Tensor, *, epoch: int, step: int) -> Mapping[str, float]:
        if next(steps) == 4 and trainer.team.rank == rank:
            signal.raise_signal(number)
        return whole_step(trainer, chosen, epoch=epoch, step=step)

    with mock.patch.object(Trainer, "_step", step):
        start("parts")


def diverging() -> str:
    """What this process says when the loss of the second one is no number."""
    kind = type(CLASSIFICATION)
    loss = kind.training_loss

    def nowhere(task: Task, outputs: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        found = loss(task, outputs, targets, label_smoothing=label_smoothing)
        return found if is_main() else found * torch.nan

    try:
        with mock.patch.object(kind, "training_loss", nowhere):
            start("diverging")
    except GateError as error:
        return error.message
    return ""


def start(run: str) -> None:
    folder = Path(sys.argv[1], run)
    resume = (folder / STATE).exists()
    train("tsresnet18", settings=SETTINGS, run_dir=folder, device="cpu", resume=resume)


def main() -> None:
    resolve = manifest.resolve
    with pytest.MonkeyPatch.context() as patch:
        Mirror(Path(sys.argv[1]), patch).expect(int(sys.argv[2]))
        patch.setattr(manifest, "resolve", lambda name: replace(resolve(name), dataset=NAME))
        patch.setattr("tdsnn.data._reader.usable_workers", lambda: 1)
        if not is_main():
            patch.setattr(loop, "load_state", lambda *_, **__: pytest.fail("the first one reads it"))
        start("whole")
        stops = []
        for rank, number in ((1, signal.SIGUSR1), (0, signal.SIGTERM)):
            with pytest.raises(Interrupted):
                signalled(rank, number)
            if is_main():  # who has saved it before
                stops.append(load_state(Path(sys.argv[1], "parts"))["position"])
        start("parts")
        found = {"stops": stops, "said": diverging()}
    Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
