"""From a zoo name to a finished run in a folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tdsnn import manifest as manifests
from tdsnn.data._base import load_split
from tdsnn.errors import Interrupted, MissingError, UsageError
from tdsnn.files import write_atomic
from tdsnn.kernels._library import NOTICE
from tdsnn.paths import runs_dir
from tdsnn.runtime import choose_device, environment
from tdsnn.train.recipe import override
from tdsnn.train.state import SETTINGS, check_settings, write_settings

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
) -> dict[str, Any] | None:
    """Train a zoo entry and measure it on the whole test split.

    Args:
        settings: ``key=value`` changes to the manifest.
        run_dir: folder of the run; ``runs/NAME`` by default.

    Returns:
        The outcome, which is also written to ``outcome.json``; None on processes that are not the main one.

    Raises:
        Interrupted: Ctrl-C; the state is saved and the message says how to go on.
    """
    try:
        from tdsnn.train import loop
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Training needs the package '{error.name}', which is not installed.",
            hint="Install it: pip install 'tdsnn-zoo[train]'",
        ) from error
    manifest = override(manifests.resolve(name), settings)
    folder = run_dir if run_dir is not None else runs_dir() / manifest.name
    target = choose_device(device)
    if resume:
        check_settings(folder, manifest)
    elif (folder / SETTINGS).exists():
        raise UsageError(
            f"{folder} already holds a run.", hint="Continue it with --resume, or choose another --run-dir."
        )
    if manifest.recipe.compile and target.type == "cpu":
        note(NOTICE)
    splits = load_split(manifest.dataset, "train"), load_split(manifest.dataset, "test")
    trainer = loop.Trainer(manifest, folder=folder, train=splits[0], monitor=splits[1], device=target)
    main = trainer.accelerator.is_main_process
    if resume:
        trainer.resume()
    elif main:
        folder.mkdir(parents=True, exist_ok=True)
        write_settings(folder, manifest)
    note(
        f"Training {manifest.name} in {folder}: {manifest.recipe.epochs} epochs, T={trainer.model.timesteps}"
    )
    made_with = environment(trainer.accelerator.device)
    try:
        trainer.run(watcher)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "Stopped; the state was saved.", hint=f"Continue: {_continue(name, settings, run_dir)}"
        ) from error
    if not main:
        return None
    outcome = {
        "name": manifest.name,
        "monitor_accuracy": loop.accuracy(trainer.model, splits[1], device=trainer.accelerator.device),
        "n": len(splits[1].labels),
        "data_digests": {"train": splits[0].digest, "test": splits[1].digest},
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
