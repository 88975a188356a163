"""The training loop: one readable pass over epochs and steps, whose state survives a kill at any moment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tdsnn import zoo
from tdsnn.data._base import Split
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import file_error
from tdsnn.kernels.memory import keep_freed_memory
from tdsnn.models._base import Model
from tdsnn.models._checkpoint import require_savable
from tdsnn.origin import Origin, require_same
from tdsnn.schema import Manifest
from tdsnn.tasks._base import TASKS
from tdsnn.topography.losses._base import SPATIAL_LOSSES
from tdsnn.topography.positions import PREPARATION
from tdsnn.topography.preparation import prepare_sheets
from tdsnn.training._draws import batches, generator
from tdsnn.training.adversarial import Adversary, robust_accuracy
from tdsnn.training.finish import round_weights, settle_statistics
from tdsnn.training.fresh import fresh_model
from tdsnn.training.images import accuracy, prepare
from tdsnn.training.objective import Objective, diverged
from tdsnn.training.optim import Average, build_optimizer, set_lr
from tdsnn.training.progress import Meter, Position, Watcher
from tdsnn.training.state import CHECKPOINT, STATE, keep_lines, load_state, save_state, settings_digest
from tdsnn.training.stopping import Stop

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
        self.accelerator = Accelerator(cpu=device.type == "cpu")
        self.processes = self.accelerator.num_processes
        # Of several processes each has a device of its own, which only the launcher knows.
        self.device = device if self.processes == 1 else self.accelerator.device
        self._check_batch()
        self.position = Position()
        self.meter = Meter()
        self._cpu_before = -time.process_time()
        self.model = fresh_model(manifest, image_size=train.images.shape[2:])
        # Now, not after hours.
        require_savable(self.model)
        self.model.to(memory_format=torch.channels_last)
        compiled = recipe.compile and self.device.type == "cpu" and self.model.compile_operators()
        if compiled:
            keep_freed_memory()
        self._arranged_by: str | None = None
        if manifest.topographic and manifest.topography.preparation == PREPARATION:
            # What the loss refuses needs no search before.
            SPATIAL_LOSSES.load(manifest.topography.loss)(self.model, manifest.topography)
            twin = zoo.open_model(auxiliary or manifest.twin)
            self._arranged_by = twin.weights_sha256
            source = {"model": twin.config.name, "weights_sha256": twin.weights_sha256}
            self._prepare_sheets(twin.model.to(self.device), source)
        self.objective = Objective(manifest, self.model, compiled=compiled)
        self._adversary: Adversary | None = None
        if recipe.adversarial:
            self._adversary = Adversary(recipe.adversarial, task=TASKS.load(train.task), recipe=recipe)
        self.model.to(self.device)
        self.wrapped, self.optimizer = self.accelerator.prepare(
            self.model, build_optimizer(self.model, recipe), device_placement=[False, False]
        )
        self.average = Average(self.model, recipe.ema_decay) if recipe.ema_decay else None

    def _check_batch(self) -> None:
        size, images = self.manifest.recipe.batch_size, len(self.train.labels)
        if not self.steps_per_epoch:
            raise UsageError(
                f"A batch of {size} is more than the {images} training images.",
                hint=f"For example --set batch_size={min(64, images)}",
            )
        # With unequal shares the images of the smaller ones would count for more.
        if size % self.processes:
            raise UsageError(
                f"A batch of {size} images cannot be shared equally by {self.processes} processes.",
                hint=f"For example --set batch_size={self.processes * math.ceil(size / self.processes)}",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch."""
        return len(self.train.labels) // self.manifest.recipe.batch_size

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
        state = load_state(self.folder)
        require_same(
            state.get("origin", {}),  # runs of before it was kept have none
            self.origin,
            what=f"The saved state '{self.folder / STATE}'",
            hint="Resume with what the run began with, or start anew with another --run-dir.",
        )
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
        # Runs of before these were kept have neither.
        self.meter = Meter(state.get("meter"))
        self._cpu_before = state.get("cpu_seconds", 0.0) - time.process_time()
        if self.average is not None:
            self.average.values = {key: value.to(self.device) for key, value in state["average"].items()}
            self.average.steps = state["average_steps"]

    def run(self, watcher: Watcher, *, stop_after: int | None = None) -> None:
        """Train to the recipe's last epoch, or for ``stop_after`` steps of this call.

        A ``KeyboardInterrupt`` saves the state before it goes on; so does time, every three minutes.

        Raises:
            GateError: a loss is not finite; the last saved state stays as it is.
        """
        done, saved = 0, time.monotonic()
        try:
            while self.position.epoch < self.manifest.recipe.epochs:
                for line in self._epoch():
                    if self.accelerator.is_main_process:
                        watcher.step(line)
                    done += 1
                    if done == stop_after:
                        self.save()
                        return
                    if time.monotonic() - saved > _SAVE_EVERY_S:
                        self.save()
                        saved = time.monotonic()
                self._close_epoch(watcher)
                saved = time.monotonic()
        except KeyboardInterrupt:
            self.save()
            raise
        if self.accelerator.is_main_process:
            self._finish()
            zoo.save(
                self.model,
                self.folder / CHECKPOINT,
                name=self.manifest.name,
                dataset=self.manifest.dataset,
            )

    def _prepare_sheets(self, auxiliary: Model, source: dict[str, str]) -> None:
        if self.manifest.recipe.compile and auxiliary.mean.device.type == "cpu":
            auxiliary.compile_operators()
        channels, height, width = self.train.images.shape[1:]
        self.model.sheets = prepare_sheets(
            self.model.sheets,
            auxiliary,
            self.manifest.topography,
            shape=(channels, height, width),
            source=source,
            folder=self.folder / "positions",
        )

    def _finish(self) -> None:
        """Turn the model into the one to publish: averaged weights, settled statistics, eval mode."""
        if self.average is not None:
            self.model.load_state_dict(self.average.values)
        recipe = self.manifest.recipe
        if recipe.weight_format == "fp16":
            round_weights(self.model)
        if recipe.bn_batches:
            plan = batches(
                recipe.seed, recipe.epochs, samples=len(self.train.labels), batch_size=recipe.batch_size
            )
            chosen = enumerate(plan[: recipe.bn_batches])
            passes = (self._batch(rows, epoch=recipe.epochs, step=step)[0] for step, rows in chosen)
            settle_statistics(self.model, passes)
        self.model.eval()
        # Without a spatial loss the sheets do not matter before, and the weights are their own auxiliary.
        if self.manifest.topography.preparation == PREPARATION and not self.manifest.topographic:
            self._prepare_sheets(self.model, {"model": self.manifest.name})

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
        recipe = self.manifest.recipe
        self.wrapped.train()
        plan = batches(
            recipe.seed, self.position.epoch, samples=len(self.train.labels), batch_size=recipe.batch_size
        )
        if not self.position.step:
            self.meter = Meter()
        for step in range(self.position.step, len(plan)):
            with self.stop.whole():
                parts = self._step(plan[step], epoch=self.position.epoch, step=step)
                self.position.step = step + 1
                self.meter.add(parts)
            yield self._line()

    def _step(self, chosen: Tensor, *, epoch: int, step: int) -> dict[str, Tensor]:
        recipe = self.manifest.recipe
        # Those of the middle of the step: at its start the first would be zero.
        set_lr(self.optimizer, recipe, epoch + (step + 0.5) / self.steps_per_epoch)
        rank = self.accelerator.process_index
        images, labels = self._batch(chosen[rank :: self.processes], epoch=epoch, step=step, rank=rank)
        losses = self.objective(
            self.wrapped,
            images,
            labels,
            epoch=epoch,
            step=step,
            fraction=step / self.steps_per_epoch,
            with_shares=not self.meter.steps,
        )
        if not math.isfinite(losses.total.item()):
            found = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.parts.items())
            raise diverged("loss", epoch=epoch, step=step, found=f" ({found})")
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        if recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        if losses.shares is not None:
            self.meter.shares = losses.shares
        return losses.parts

    def _batch(self, indices: Tensor, *, epoch: int, step: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """Images as the network is to see them, and their labels."""
        recipe, rows = self.manifest.recipe, indices.numpy()
        draws = generator(recipe.seed, "augment", epoch, step, rank)
        images = torch.from_numpy(self.train.images[rows])
        x = prepare(images, recipe.augmentation, generator=draws, device=self.device)
        labels = torch.from_numpy(self.train.labels[rows]).to(self.device)
        if self._adversary is not None:
            x = self._adversary.perturb(self.model, x, labels, indices=indices, epoch=epoch, step=step)
        return x, labels

    def _line(self) -> dict[str, Any]:
        line = {
            "epoch": self.position.epoch,
            "step": self.position.step,
            **self.meter.means(),
            **({"gradient_shares": self.meter.shares} if self.meter.shares else {}),
            "lr": self.optimizer.param_groups[-1]["lr"],
            "cpu_seconds": round(self.cpu_seconds, 1),
        }
        pace = self.meter.pace()
        if pace is not None:
            epochs_left = self.manifest.recipe.epochs - self.position.epoch
            left = epochs_left * self.steps_per_epoch - self.position.step
            line["images_per_second"] = self.manifest.recipe.batch_size / pace
            line["seconds_left"] = left * pace
        return line

    def _over_processes(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Means over the processes, whose shares of a batch are equal."""
        if self.processes == 1:
            return dict(sums)
        own = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device)
        mean = self.accelerator.reduce(own, reduction="mean")
        return dict(zip(sums, mean.tolist(), strict=True))

    def held_out_scores(self) -> dict[str, float]:
        """Accuracy of the network as it is, as a fraction, and under PGD-10 if the recipe is adversarial."""
        recipe = self.manifest.recipe
        scores = {"held_out_accuracy": accuracy(self.model, self.held_out, device=self.device)}
        if recipe.adversarial:
            scores["held_out_robust_accuracy"] = robust_accuracy(
                self.model, self.held_out, recipe.adversarial, seed=recipe.seed, device=self.device
            )
        return scores

    def _close_epoch(self, watcher: Watcher) -> None:
        self.meter.sums = self._over_processes(self.meter.sums)
        line = self._line() | self.held_out_scores()
        if self.accelerator.is_main_process:
            with file_error(self.folder / LOG), (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        self.position = Position(epoch=self.position.epoch + 1)
        self.save()
        if self.accelerator.is_main_process:
            watcher.epoch(line)
