"""From a zoo name to a finished run in a folder."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tdsnn import manifest as manifests
from tdsnn.data._base import load_training
from tdsnn.errors import Interrupted, MissingError, UsageError
from tdsnn.files import write_atomic
from tdsnn.kernels._library import NOTICE
from tdsnn.paths import runs_dir
from tdsnn.runtime import choose_device, environment
from tdsnn.train.recipe import override
from tdsnn.train.state import SETTINGS, STATE, check_settings, write_settings
from tdsnn.train.stopping import Stop

OUTCOME = "outcome.json"


def train(
    name: str,
    *,
    settings: Sequence[str],
    resume: bool,
    device: str,
    run_dir: Path | None,
    watcher: Any,
    note: Callable[[str], None],
    auxiliary: str | Path | None = None,
) -> dict[str, Any] | None:
    """Train a zoo entry and measure it on the held-out images; nothing here ever sees a test image.

    Args:
        settings: ``key=value`` changes to the manifest.
        run_dir: folder of the run; ``runs/NAME`` by default.
        auxiliary: as of :class:`tdsnn.train.loop.Trainer`.

    Returns:
        The outcome, which is also written to ``outcome.json``; None on processes that are not the main one.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved and the message says how to go on.
        GateError: a loss is not finite.
    """
    try:
        from tdsnn.train import loop
        from tdsnn.train.images import accuracy
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Training needs the package '{error.name}', which is not installed.",
            hint="Install it: pip install 'tdsnn-zoo[train]'",
        ) from error
    manifest = override(manifests.resolve(name), settings)
    folder = run_dir if run_dir is not None else runs_dir() / manifest.name
    target = choose_device(device)
    main = os.environ.get("RANK", "0") == "0"  # as torchrun says; the accelerator does not know it yet
    if resume:
        check_settings(folder, manifest)
    elif main and (folder / SETTINGS).exists():
        raise UsageError(
            f"{folder} already holds a run.", hint="Continue it with --resume, or choose another --run-dir."
        )
    if manifest.recipe.compile and target.type == "cpu":
        note(NOTICE)
    rest, held_out = load_training(manifest.dataset)
    if main and not resume:
        # Before anything that takes time, so that a run that was stopped at any moment can be resumed.
        write_settings(folder, manifest)
    stop = Stop()
    try:
        with stop.listening():
            trainer = loop.Trainer(
                manifest,
                folder=folder,
                train=rest,
                held_out=held_out,
                device=target,
                auxiliary=auxiliary,
                stop=stop,
            )
            if resume and (folder / STATE).exists():
                trainer.resume()
            steps = trainer.model.timesteps
            note(f"Training {manifest.name} in {folder}: {manifest.recipe.epochs} epochs, T={steps}")
            made_with = environment(trainer.accelerator.device)
            trainer.run(watcher)
            if not main:
                return None
            right = accuracy(trainer.model, held_out, device=trainer.accelerator.device)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "Stopped; the state was saved.", hint=f"Continue: {_continue(name, settings, run_dir)}"
        ) from error
    outcome = {
        "name": manifest.name,
        "held_out_accuracy": right,
        "n": len(held_out.labels),
        "data_digests": {"train": rest.digest, "held_out": held_out.digest},
        "cpu_seconds": round(trainer.cpu_seconds, 1),
        "checkpoint": str(folder / loop.CHECKPOINT),
        "environment": made_with,
    }
    write_atomic(folder / OUTCOME, (json.dumps(outcome, indent=2) + "\n").encode())
    return outcome


def _continue(name: str, settings: Sequence[str], run_dir: Path | None) -> str:
    words = ["tdsnn-zoo", "train", name, *(f"--set={setting}" for setting in settings), "--resume"]
    if run_dir is not None:
        words.append(f"--run-dir={run_dir}")
    return shlex.join(words)
