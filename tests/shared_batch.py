"""Trainings of several processes that share their batches; what each saw goes into files.

``python shared_batch.py FOLDER`` works with four processes, then with two.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from tdsnn.processes import Team, present_team
from tdsnn.schema import Topography
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses.stc import STC
from tdsnn.topography.losses.tdann import TDANN
from tdsnn.topography.sheets import CorticalSheet, build_sheets
from tdsnn.training import arrangement, loop
from tests.training import Quiet, make_split, small, trainer

LOSSES = {
    "stc": ("topography.loss=stc",),
    "tdann": ("topography.loss=tdann", "topography.beta=0"),
    "topoloss": (
        "topography.loss=topoloss",
        "topography.beta=0",
        "topography.factor_h=2.0",
        "topography.factor_w=2.0",
    ),
}
SHARED = (
    "batch_size=16",
    "augmentation=['crop', 'flip']",
    "topography.warmup_epochs=0",
    "topography.alpha=0.5",
    "epochs=1",
    "ema_decay=0",
)


def first_step(loss: str, folder: Path, *changes: str) -> dict[str, Any]:
    """What the first step of a training logs, its gradients, and what it leaves in the network."""
    run = trainer(small(*SHARED, *LOSSES[loss], *changes), folder, make_split())
    run.wrapped.train()
    parts = run._step(run.batches.plan(0)[0], epoch=0, step=0)
    return {
        "logged": parts,
        "shares": run.meter.shares,
        "gradient": torch.cat([one.grad.flatten() for one in run.model.parameters() if one.grad is not None]),
        "statistics": torch.cat([one.flatten().float() for one in run.model.buffers()]),
    }


def spatial_loss_alone(team: Team) -> dict[str, Any]:
    """STC and TDANN of a share of random spikes, and the gradients there as DDP would take their mean."""
    sheets = build_sheets({"a": (4, 8, 8)}, [SheetSpec("a", 10.0)], seed=0)
    spikes = (torch.rand(3, 16, *sheets["a"].shape, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    found = {}
    for name, kind in (("stc", STC), ("tdann", TDANN)):
        topography = Topography(loss=name, alpha=1.0, beta=float(kind is STC), clusters=3, cluster_units=12)
        loss = kind(SimpleNamespace(sheets=sheets, get_submodule=None), topography)
        loss.team = team
        own = spikes[:, team.rank :: team.size].clone().requires_grad_()
        total = loss({"a": own}, generator=torch.Generator().manual_seed(1)).total
        (gradient,) = torch.autograd.grad(total, own)
        found[name] = {"loss": float(total.detach()), "gradient": gradient / team.size}
    return found


def shuffled(sheets: Mapping[str, CorticalSheet], *_: object, **__: object) -> dict[str, CorticalSheet]:
    """In place of a search for positions, which takes long: others in each process."""
    draws = torch.Generator().manual_seed(os.getpid())
    order = {name: torch.randperm(len(sheet.positions), generator=draws) for name, sheet in sheets.items()}
    return {name: replace(sheet, positions=sheet.positions[order[name]]) for name, sheet in sheets.items()}


def whole_run(folder: Path) -> dict[str, Any]:
    """A training: how often this process searched and measured, where it put the units, and what is left
    in the end."""
    changes = ("sync_batch_norm=true", "bn_batches=1", "topography.preparation=pre-optimised")
    with (
        mock.patch.object(loop, "held_out_scores", wraps=loop.held_out_scores) as measured,
        mock.patch.object(arrangement, "prepare_sheets", side_effect=shuffled) as searched,
    ):
        run = trainer(small(*SHARED, *changes), folder, make_split())
        run.run(Quiet())
    return {
        "measured": measured.call_count,
        "searched": searched.call_count,
        "positions": {name: sheet.positions for name, sheet in run.model.sheets.items()},
        "norms": {type(one) for one in run.model.modules() if isinstance(one, torch.nn.BatchNorm2d)},
    }


def work(rank: int, size: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/group-{size}", rank=rank, world_size=size)
    found = {loss: first_step(loss, folder / loss, "sync_batch_norm=true") for loss in LOSSES}
    found["alone"] = spatial_loss_alone(present_team())
    if size == 2:
        found["apart"] = first_step("stc", folder / "apart")
        found["run"] = whole_run(folder / "run")
    torch.save(found, folder / f"{size}-{rank}.pt")
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)
    # What was imported here is not imported again in each process; optimizers do so at their first step.
    import_module("torch._dynamo")
    fork = multiprocessing.get_context("fork")
    for size in (4, 2):
        arguments = [(rank, size, Path(sys.argv[1])) for rank in range(size)]
        processes = [fork.Process(target=work, args=each, daemon=True) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(1)


if __name__ == "__main__":
    main()
