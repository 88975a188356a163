"""What ``tdsnn-zoo info`` says of a folder: a run, or a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from tdsnn import paths
from tdsnn.errors import UsageError
from tdsnn.schema import plain
from tdsnn.weights import CONFIG_FILE, verify_checkpoint

if TYPE_CHECKING:
    from tdsnn.schema import Manifest

__all__ = ["describe_folder"]

_STOPPED = "stopped"


def describe_folder(folder: Path) -> dict[str, Any]:
    """Plain values by their names, in the order in which they are read.

    Raises:
        UsageError: the folder is neither.
        IntegrityError: a file in it is damaged.
    """
    if (folder / CONFIG_FILE).is_file():
        return _checkpoint(folder)
    from tdsnn.training.state import SETTINGS

    if (folder / SETTINGS).is_file():
        return _run(folder)
    raise UsageError(
        f"'{folder}' is neither a checkpoint nor the folder of a run.",
        hint=f"A checkpoint has {CONFIG_FILE}, a run {SETTINGS}. The zoo's models: tdsnn-zoo list",
    )


def _checkpoint(folder: Path) -> dict[str, Any]:
    config, weights = verify_checkpoint(folder)
    return {
        "checkpoint": str(folder),
        "name": config.name,
        "architecture": config.architecture,
        "arguments": config.arguments,
        "dataset": config.dataset,
        "timesteps": config.timesteps,
        "sheets": sorted(config.sheets),
        "weights": {"size": weights.size, "sha256": weights.sha256},
    }


def _run(folder: Path) -> dict[str, Any]:
    from tdsnn.training.loop import LOG
    from tdsnn.training.state import CHECKPOINT, read_log, read_outcome, read_settings

    manifest, outcome = read_settings(folder), read_outcome(folder)
    log = read_log(folder / LOG, growing=outcome is None) if (folder / LOG).is_file() else []
    state = "finished" if outcome else _state_of_unfinished(folder)
    found = {
        "run": str(folder),
        "name": manifest.name,
        "state": state,
        "epochs": f"{len(log)} of {manifest.recipe.epochs}",
        "architecture": manifest.architecture,
        "arguments": dict(manifest.arguments),
        "dataset": manifest.dataset,
        "topography": manifest.topography.table(),
        "recipe": plain(manifest.recipe),
        "last epoch": {key: value for key, value in log[-1].items() if not isinstance(value, dict)}
        if log
        else None,
    }
    if outcome:
        found["checkpoint"] = str(folder / CHECKPOINT)
        found["next"] = f"tdsnn-zoo publish {shlex.quote(str(folder))}"
    elif state == _STOPPED:
        found["next"] = _continuation(folder, manifest)
    return found


def _state_of_unfinished(folder: Path) -> str:
    """Whether a process trains in the folder; one that was killed holds nothing."""
    from tdsnn.training.state import lock_of

    try:
        with lock_of(folder).acquire(timeout=0):
            return _STOPPED
    except Timeout:
        return "training now"
    except OSError:  # without the right to write there nobody can ask
        return "stopped, or training under another user"


def _continuation(folder: Path, manifest: Manifest) -> str:
    words = ["tdsnn-zoo", "train", manifest.name, "--resume"]
    if folder.resolve() != (paths.runs_dir() / manifest.name).resolve():
        words += ["--run-dir", str(folder)]
    return shlex.join(words)
