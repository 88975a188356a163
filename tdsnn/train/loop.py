"""The training loop: one readable pass over epochs and steps, saved after each epoch and on Ctrl-C."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn import zoo
from tdsnn.data._augment import augment
from tdsnn.data._base import Split
from tdsnn.models._base import Model
from tdsnn.topography.losses._base import SPATIAL_LOSSES, SpatialLoss, gradient_shares
from tdsnn.topography.positions import PREPARATION
from tdsnn.topography.responses import record
from tdsnn.train._draws import batches, generator
from tdsnn.train.optim import Average, build_optimizer, set_lr
from tdsnn.train.preparation import fresh_model, prepare_sheets
from tdsnn.train.state import load_state, save_state
from tdsnn.types import Manifest

LOG = "log.jsonl"
CHECKPOINT = "checkpoint"
_EVALUATION_BATCH = 250
_MONITOR_IMAGES = 2_000
"""Test images looked at after each epoch; nothing is chosen by them."""


class Watcher(Protocol):
    """Receives what happens, for progress bars; a run without one is silent."""

    def step(self, line: dict[str, Any]) -> None: ...
    def epoch(self, line: dict[str, Any]) -> None: ...


@dataclass
class Position:
    """Where a run stands. ``step`` counts the batches done of the current epoch."""

    epoch: int = 0
    step: int = 0


class _Meter:
    """Sums of what an epoch's steps reported since it began or was resumed, and the first one's shares."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps = 0
        self.sums: dict[str, float] = {}
        self.shares: dict[str, float] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        self.steps += 1
        for key, value in parts.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)

    def means(self) -> dict[str, float]:
        return {key: total / self.steps for key, total in self.sums.items()}


class Trainer:
    """Trains one manifest in one folder.

    Args:
        manifest: model, data, topography and recipe.
        folder: where state, log and checkpoint go.
        train, monitor: splits to learn from and to measure after each epoch.
        device: ``cpu`` or ``cuda``; processes and their devices come from ``accelerate``.
    """

    def __init__(
        self, manifest: Manifest, *, folder: Path, train: Split, monitor: Split, device: torch.device
    ) -> None:
        self.manifest, self.folder, self.train, self.monitor = manifest, folder, train, monitor
        self.accelerator = Accelerator(cpu=device.type == "cpu")
        self.position = Position()
        self.meter = _Meter()
        self.model = fresh_model(manifest, image_size=train.images.shape[2:])
        self.model.to(memory_format=torch.channels_last)
        on_cpu = self.accelerator.device.type == "cpu"
        compiled = manifest.recipe.compile and on_cpu and self.model.compile_operators()
        self.spatial: SpatialLoss | None = None
        if manifest.topographic:
            if manifest.topography.preparation == PREPARATION:
                twin = zoo.open_model(manifest.twin)
                source = {"model": manifest.twin, "weights_sha256": twin.weights_sha256}
                self._prepare_sheets(twin.model.to(self.accelerator.device), source)
            self.spatial = SPATIAL_LOSSES.load(manifest.topography.loss)(self.model, manifest.topography)
            self.spatial.compiled = compiled
        self.wrapped, self.optimizer = self.accelerator.prepare(
            self.model, build_optimizer(self.model, manifest.recipe)
        )
        # After ``prepare``, which moves the model to its device.
        self.average = Average(self.model, manifest.recipe.ema_decay) if manifest.recipe.ema_decay else None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch."""
        return len(self.train.labels) // self.manifest.recipe.batch_size

    def resume(self) -> None:
        """Continue exactly where the last saved state left off."""
        state = load_state(self.folder)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = Position(**state["position"])
        if self.average is not None:
            device = self.accelerator.device
            self.average.values = {key: value.to(device) for key, value in state["average"].items()}
            self.average.steps = state["average_steps"]

    def run(self, watcher: Watcher, *, stop_after: int | None = None) -> None:
        """Train to the recipe's last epoch, or for ``stop_after`` steps of this call.

        A ``KeyboardInterrupt`` saves the state before it goes on.
        """
        done = 0
        try:
            while self.position.epoch < self.manifest.recipe.epochs:
                for line in self._epoch():
                    watcher.step(line)
                    done += 1
                    if done == stop_after:
                        self.save()
                        return
                self._close_epoch(watcher)
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
        if self.manifest.recipe.bn_batches:
            self._settle_statistics()
        self.model.eval()
        # Without a spatial loss the sheets do not matter before, and the weights are their own auxiliary.
        if self.manifest.topography.preparation == PREPARATION and not self.manifest.topographic:
            self._prepare_sheets(self.model, {"model": self.manifest.name})

    @torch.no_grad()
    def _settle_statistics(self) -> None:
        """Mean statistics over many training batches; running ones hang on the last ten or so, and the flips
        of neurons near their threshold make that felt. In full precision, as at inference."""
        recipe = self.manifest.recipe
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a plain mean
        plan = batches(
            recipe.seed, recipe.epochs, samples=len(self.train.labels), batch_size=recipe.batch_size
        )
        self.model.train()
        for step, chosen in enumerate(plan[: recipe.bn_batches]):
            draws = generator(recipe.seed, "augment", recipe.epochs, step, 0)
            self.model(self._batch(chosen.numpy(), draws)[0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def save(self) -> None:
        """Write the state; only the main process does."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": vars(self.position),
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
        self.meter = _Meter()
        for step in range(self.position.step, len(plan)):
            parts = self._step(plan[step], epoch=self.position.epoch, step=step)
            self.position.step = step + 1
            self.meter.add(parts)
            yield self._line()

    def _step(self, chosen: Tensor, *, epoch: int, step: int) -> dict[str, Tensor]:
        recipe, topography = self.manifest.recipe, self.manifest.topography
        epochs_done = epoch + step / self.steps_per_epoch
        set_lr(self.optimizer, recipe, epochs_done)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = chosen[rank::world].numpy()
        images, labels = self._batch(mine, generator(recipe.seed, "augment", epoch, step, rank))
        with record(self.model, self.spatial.layers if self.spatial else ()) as outputs:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = self.wrapped(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            parts = {"task": loss.detach(), "accuracy": (logits.argmax(1) == labels).float().mean()}
            if self.spatial:
                ramp = min(1.0, epochs_done / topography.warmup_epochs) if topography.warmup_epochs else 1.0
                spatial = self.spatial(outputs, generator=generator(recipe.seed, "clusters", epoch, step))
                parts |= spatial.parts
                # Once an epoch, at full weight: during the warm-up it already shows what is to come.
                if not self.meter.steps:
                    terms = {"task": loss, **spatial.terms}
                    self.meter.shares = gradient_shares(terms, self.model.parameters())
                loss = loss + ramp * spatial.total
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return parts

    def _batch(self, indices: np.ndarray[Any, Any], draws: torch.Generator) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(self.train.images[indices])
        device = self.accelerator.device
        x = prepare(images, self.manifest.recipe.augmentation, generator=draws, device=device)
        return x, torch.from_numpy(self.train.labels[indices]).to(device)

    def _line(self) -> dict[str, Any]:
        line = {"epoch": self.position.epoch, "step": self.position.step}
        if not self.meter.steps:  # resumed at the very end of an epoch
            return line
        pace = (time.perf_counter() - self.meter.started) / self.meter.steps
        left = (self.manifest.recipe.epochs - self.position.epoch) * self.steps_per_epoch - self.position.step
        return {
            **line,
            **self.meter.means(),
            **({"gradient_shares": self.meter.shares} if self.meter.shares else {}),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": self.manifest.recipe.batch_size / pace,
            "seconds_left": left * pace,
        }

    def _close_epoch(self, watcher: Watcher) -> None:
        line = self._line()
        line["monitor_accuracy"] = accuracy(
            self.model, self.monitor, device=self.accelerator.device, limit=_MONITOR_IMAGES
        )
        self.position = Position(epoch=self.position.epoch + 1)
        self.save()
        if self.accelerator.is_main_process:
            with (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            watcher.epoch(line)


def prepare(
    images: Tensor, augmentation: Sequence[str], *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Augmented images (N, C, H, W) in [0, 1], channels last, on the device, from uint8 ones."""
    x = augment(images, augmentation, generator=generator).to(device, non_blocking=True)
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: Model, split: Split, *, device: torch.device, limit: int | None = None) -> float:
    """Fraction of a split's (first ``limit``) images classified correctly; the model's mode is kept."""
    training = model.training
    model.eval()
    correct = 0
    count = min(limit or len(split.labels), len(split.labels))
    for start in range(0, count, _EVALUATION_BATCH):
        part = slice(start, min(start + _EVALUATION_BATCH, count))
        images = torch.from_numpy(np.array(split.images[part]))
        labels = torch.from_numpy(np.array(split.labels[part])).to(device)
        x = prepare(images, (), generator=torch.Generator(), device=device)
        correct += int((model(x).argmax(1) == labels).sum())
    model.train(training)
    return correct / count
