"""The training loop: one readable pass over epochs and steps, whose state survives a kill at any moment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tdsnn import zoo
from tdsnn.data._augment import WHOLE, Part
from tdsnn.data._base import Split
from tdsnn.errors import IntegrityError
from tdsnn.files import file_error
from tdsnn.models._checkpoint import require_savable
from tdsnn.origin import Origin
from tdsnn.processes import launched, present_team
from tdsnn.runtime import deterministic
from tdsnn.schema import Manifest
from tdsnn.tasks._base import TASKS
from tdsnn.topography.losses._base import SPATIAL_LOSSES
from tdsnn.topography.positions import PREPARATION
from tdsnn.training.arrangement import Arrangement
from tdsnn.training.finish import finish
from tdsnn.training.fresh import fresh_model
from tdsnn.training.monitor import held_out_scores
from tdsnn.training.objective import Objective, diverged
from tdsnn.training.optim import Average, build_optimizer, set_lr
from tdsnn.training.passes import LOSS, Chunk, Passes
from tdsnn.training.progress import Meter, Position, Watcher, log_line
from tdsnn.training.shared_norm import keep_statistics_apart, share_statistics
from tdsnn.training.state import CHECKPOINT, keep_lines, load_state, save_state, settings_digest
from tdsnn.training.stopping import Stop
from tdsnn.training.streaming import training_batches

LOG = "log.jsonl"
_SAVE_EVERY_S = 180.0
"""What a kill may cost, in seconds of training; a state is written in less than one."""


class Trainer:
    """Trains one manifest in one folder.

    Args:
        manifest: model, data, topography and recipe.
        folder: where state, log and checkpoint go.
        train, held_out: images to learn from, and to measure after each epoch.
        device: where to train, if this is the only process; of several each has the device that the launcher
            gave it.
        auxiliary: checkpoint whose responses put the units of pre-optimised sheets into place before a
            topographic training: a zoo entry or a folder, by default the twin in the zoo.
        stop: what to ask before a step may be torn apart; without it Ctrl-C does.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        folder: Path,
        train: Split,
        held_out: Split,
        device: torch.device,
        auxiliary: str | Path | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.manifest, self.folder, self.train, self.held_out = manifest, folder, train, held_out
        recipe = manifest.recipe
        self.stop = stop or Stop()
        # What it is told holds for all later runs of the process, and alone its device is not asked for.
        self.accelerator = Accelerator(cpu=device.type == "cpu" and launched() > 1)
        self.processes = self.accelerator.num_processes
        self.team = present_team()
        # Of several processes each has a device of its own, which only the launcher knows.
        self.device = device if self.processes == 1 else self.accelerator.device
        self.batches = training_batches(train, recipe, processes=self.processes, device=self.device)
        self.position, self.meter = Position(), Meter()
        self._cpu_before = -time.process_time()
        self.model = fresh_model(manifest, image_size=train.images.shape[2:])
        # Now, not after hours.
        require_savable(self.model)
        self.model.to(self.device).to(memory_format=torch.channels_last)
        compiled = recipe.compile and self.model.compile_operators()
        self._arranged_by: str | None = None
        self._arrangement = Arrangement(manifest=manifest, shape=train.images.shape[1:], folder=folder)
        if manifest.topographic and manifest.topography.preparation == PREPARATION:
            # What the loss refuses needs no search before.
            SPATIAL_LOSSES.load(manifest.topography.loss).check_network(self.model, manifest.topography)
            search = partial(self._arrangement.by_twin, self.model.sheets, auxiliary, self.device)
            self.model.sheets, self._arranged_by = self.team.once(search)
        task = TASKS.load(train.task)
        self.objective = Objective(manifest, task, self.model, compiled=compiled, team=self.team)
        if recipe.sync_batch_norm and self.processes > 1:
            share_statistics(self.model, self.team)
        self.wrapped, self.optimizer = self.accelerator.prepare(
            self.model, build_optimizer(self.model, recipe), device_placement=[False, False]
        )
        self.passes = Passes(
            recipe,
            self.objective,
            task=task,
            model=self.model,
            wrapped=self.wrapped,
            accelerator=self.accelerator,
        )
        self.average = Average(self.model, recipe.ema_decay) if recipe.ema_decay else None

    @property
    def cpu_seconds(self) -> float:
        """Time that all threads of this process have computed for the run, also before it was resumed."""
        return self._cpu_before + time.process_time()

    @property
    def origin(self) -> Origin:
        """What the saved state depends on."""
        return {
            "set of settings": settings_digest(self.manifest),
            "set of training images": self.train.digest,
            "set of held-out images": self.held_out.digest,
            "network that arranged the sheets": self._arranged_by,
            "number of processes": self.processes,
        }

    def resume(self) -> None:
        """Continue exactly where the last saved state left off.

        Raises:
            UsageError: the state comes from other settings, images, sheets or another number of processes.
            IntegrityError: it is damaged.
        """
        # One reads it: others may see an older one, or none, in a folder of their own.
        state = self.team.once(partial(load_state, self.folder, origin=self.origin))
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise IntegrityError(
                f"The saved state in {self.folder} does not fit this run ({type(error).__name__}).",
                hint="Start anew with another --run-dir; the log of this run is kept.",
            ) from error
        if self.accelerator.is_main_process:
            # A line is written before the state that follows it.
            keep_lines(self.folder / LOG, self.position.epoch)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = Position(**state["position"])
        self.meter = Meter(state["meter"])
        self._cpu_before = state["cpu_seconds"] - time.process_time()
        if self.average is not None:
            self.average.values = {key: value.to(self.device) for key, value in state["average"].items()}
            self.average.steps = state["average_steps"]

    def run(self, watcher: Watcher, *, stop_after: int | None = None) -> None:
        """Train to the recipe's last epoch, or for ``stop_after`` steps of this call.

        A ``KeyboardInterrupt`` saves the state before it goes on; so does time, every three minutes. Of
        several processes all end where one is interrupted, after the step or at the next one.

        Raises:
            GateError: a loss is not finite; the last saved state stays as it is.
        """
        # Several processes end after the same step, or one would wait for ever for what others leave out.
        together = self.stop.held() if self.processes > 1 else nullcontext()
        try:
            with deterministic(tf32=self.manifest.recipe.precision == "tf32"), together:
                if not self._train(watcher, stop_after=stop_after):
                    return
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            self.batches.close()
        if self.accelerator.is_main_process:
            self._finish()
            name, dataset = self.manifest.name, self.manifest.dataset
            zoo.save(self.model, self.folder / CHECKPOINT, name=name, dataset=dataset)

    def _train(self, watcher: Watcher, *, stop_after: int | None) -> bool:
        """All steps that are left, or ``stop_after``; whether none is left."""
        done, saved = 0, time.monotonic()
        while self.position.epoch < self.manifest.recipe.epochs:
            for line in self._epoch():
                if self.accelerator.is_main_process:
                    watcher.step(line)
                done += 1
                if done == stop_after:
                    self.save()
                    return False
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
            self._close_epoch(watcher)
            saved = time.monotonic()
        return True

    def _finish(self) -> None:
        """Turn the model into the one to publish: averaged weights, settled statistics, eval mode."""
        recipe = self.manifest.recipe
        keep_statistics_apart(self.model)
        chosen = enumerate(self.batches.plan(recipe.epochs)[: recipe.bn_batches])
        chunks = (self._chunk(rows, epoch=recipe.epochs, step=step) for step, rows in chosen)
        # What did not fit into one pass of one process does not here.
        passes = self.processes * (recipe.accumulate or 1)
        seen = (self.passes.attacked(part) for chunk in chunks for part in chunk.split(passes))
        finish(self.model, recipe, average=self.average, batches=seen)
        self.batches.close()
        # Without a spatial loss the sheets do not matter before, and the weights are their own auxiliary.
        if self.manifest.topography.preparation == PREPARATION and not self.manifest.topographic:
            self.model.sheets = self._arrangement.by_itself(self.model)

    def save(self) -> None:
        """Write the state; only the main process does."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": vars(self.position),
            "meter": self.meter.stored(),
            "cpu_seconds": self.cpu_seconds,
            "origin": self.origin,
        }
        if self.average is not None:
            state |= {"average": self.average.values, "average_steps": self.average.steps}
        save_state(self.folder, state)

    def _epoch(self) -> Iterator[dict[str, Any]]:
        """Steps left in the current epoch; yields a log line after each."""
        self.wrapped.train()
        plan = self.batches.plan(self.position.epoch)
        if not self.position.step:
            self.meter = Meter()
        for step in range(self.position.step, len(plan)):
            with self.stop.whole(self.team):
                parts = self._step(plan[step], epoch=self.position.epoch, step=step)
                self.position.step = step + 1
                self.meter.add(parts)
            yield self._line()

    def _step(self, chosen: Tensor, *, epoch: int, step: int) -> dict[str, float]:
        recipe = self.manifest.recipe
        # Those of the middle of the step: at its start the first would be zero.
        set_lr(self.optimizer, recipe, epoch + (step + 0.5) / self.batches.steps)
        part = Part(self.team.rank, self.team.size)
        chunk = self._chunk(chosen[part.rank :: part.size], epoch=epoch, step=step, part=part)
        self.optimizer.zero_grad(set_to_none=True)
        own, shares = self.passes(chunk, with_shares=not self.meter.steps)
        parts = self.team.means(own | self.batches.found())
        # Of all processes: one that went on would save what it learned from gradients that are no numbers.
        if not math.isfinite(parts.pop(LOSS)):
            raise diverged("loss", epoch=epoch, step=step, found=parts)
        if recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        self.meter.shares |= shares
        return parts

    def _chunk(self, rows: Tensor, *, epoch: int, step: int, part: Part = WHOLE) -> Chunk:
        images, targets = self.batches.load(rows, epoch=epoch, step=step, part=part)
        fraction = step / self.batches.steps
        return Chunk(images=images, targets=targets, rows=rows, epoch=epoch, step=step, fraction=fraction)

    def _line(self) -> dict[str, Any]:
        return log_line(
            self.position,
            self.meter,
            self.manifest.recipe,
            steps_per_epoch=self.batches.steps,
            lr=self.optimizer.param_groups[-1]["lr"],
            cpu_seconds=self.cpu_seconds,
        )

    def held_out_scores(self) -> dict[str, float]:
        """Of the network as it is; see :mod:`tdsnn.training.monitor`."""
        return held_out_scores(self.model, self.held_out, self.manifest.recipe, device=self.device)

    def _close_epoch(self, watcher: Watcher) -> None:
        line = self._line() | self.team.once(self.held_out_scores) | self.batches.remarks(self.meter.means())
        if self.accelerator.is_main_process:
            with file_error(self.folder / LOG), (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        self.position = Position(epoch=self.position.epoch + 1)
        self.save()
        if self.accelerator.is_main_process:
            watcher.epoch(line)
