"""From a zoo name to a finished run in a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import Timeout

from tdsnn import manifest as manifests
from tdsnn import store
from tdsnn.data._base import load_training
from tdsnn.errors import Interrupted, MissingError, TdsnnError, UsageError
from tdsnn.files import file_error, sha256_of
from tdsnn.kernels.status import notice
from tdsnn.paths import install_command, runs_dir
from tdsnn.processes import is_main, launcher, own_device
from tdsnn.progress import Note, unheard
from tdsnn.runtime import choose_device, current, environment
from tdsnn.schema import WEIGHTS_FILE, Manifest
from tdsnn.topography.positions import PREPARATION
from tdsnn.training.progress import UNWATCHED, Watcher
from tdsnn.training.recipe import override
from tdsnn.training.state import (
    CHECKPOINT,
    OUTCOME,
    STATE,
    Outcome,
    begun,
    check_settings,
    lock_of,
    read_settings,
    write_outcome,
    write_settings,
)
from tdsnn.training.stopping import Stop


def train(
    name: str,
    *,
    settings: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    run_dir: str | Path | None = None,
    auxiliary: str | Path | None = None,
    watcher: Watcher = UNWATCHED,
    note: Note = unheard,
) -> Outcome | None:
    """Train a zoo entry and measure it on the held-out images; nothing here ever sees a test image.

    Args:
        name: of the entry.
        settings: changes to the manifest, each ``KEY=VALUE``, e.g. ``"epochs=1"`` or ``"model.width=8"``.
        resume: go on with the run in its folder, without ``settings`` under those that it began with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        run_dir: folder of the run; ``runs/NAME`` by default.
        auxiliary: as of :class:`tdsnn.training.loop.Trainer`.
        watcher: told about every step and epoch.
        note: told what takes long besides.

    Returns:
        The outcome, which is also written to ``outcome.json``; None on processes that are not the main one.

    Raises:
        UsageError: settings that cannot be used, or another process trains in the folder.
        MissingError: sheets are to be arranged by a twin that has no weights.
        Interrupted: Ctrl-C or SIGTERM; the run can go on, and the message says how.
        GateError: a loss is not finite.
        TdsnnError: a GPU lacks memory.
    """
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Training needs the package '{error.name}', which is not installed.",
            hint=f"Install it: {install_command('train')}",
        ) from error
    folder = Path(run_dir) if run_dir is not None else runs_dir() / manifests.full_name(name)
    manifest = _manifest(name, settings, folder, resume=resume)
    arranged = manifest.topographic and manifest.topography.preparation == PREPARATION
    if auxiliary is not None and not arranged:
        raise UsageError(
            f"'{manifest.name}' arranges no sheets by another network's responses.",
            hint="Leave out --sheets-from, or add --set topography.preparation=pre-optimised",
        )
    if arranged and auxiliary is None:
        _require_twin(manifest)
    target = own_device(choose_device(device))
    if not is_main():
        note = unheard
    stop = Stop()
    try:
        with stop.listening(), current(target), _alone(folder, manifest, resume=resume):
            if manifest.recipe.compile:
                note(notice(target))
            return _train(
                manifest, folder, device=target, auxiliary=auxiliary, stop=stop, watcher=watcher, note=note
            )
    except torch.OutOfMemoryError as error:
        raise _too_large(manifest) from error
    except KeyboardInterrupt as error:
        words = [*launcher(), "train", name, *(f"--set={setting}" for setting in settings), "--resume"]
        given = {"run-dir": run_dir, "sheets-from": auxiliary, "device": None if device == "auto" else device}
        words += [f"--{option}={value}" for option, value in given.items() if value is not None]
        raise Interrupted(
            "Stopped; the run can go on where it was.", hint=f"Continue: {shlex.join(words)}"
        ) from error


def _too_large(manifest: Manifest) -> TdsnnError:
    passes = 2 * (manifest.recipe.accumulate or 1)
    return TdsnnError(
        "The GPU has too little memory for this training.",
        hint=f"Compute a batch in {passes} passes: --set accumulate={passes} and another --run-dir",
    )


def _manifest(name: str, settings: Sequence[str], folder: Path, *, resume: bool) -> Manifest:
    if resume and not settings:
        found = read_settings(folder)
        if found.name == manifests.full_name(name):
            return found
        raise UsageError(
            f"The run in {folder} is of {found.name}.",
            hint=f"Continue it: tdsnn-zoo train {shlex.quote(found.name)} --resume --run-dir "
            f"{shlex.quote(str(folder))}",
        )
    return override(manifests.resolve(name), settings)


def _require_twin(manifest: Manifest) -> None:
    if store.available(manifest.twin) is not None:
        return
    run = runs_dir() / manifest.twin
    steps = [["tdsnn-zoo", "train", manifest.twin], ["tdsnn-zoo", "publish", str(run)]]
    typed = " && ".join(map(shlex.join, steps[(run / OUTCOME).is_file() :]))
    raise MissingError(
        f"The sheets of '{manifest.name}' are arranged by what its twin answers, and the zoo has no weights "
        f"of '{manifest.twin}'.",
        hint=f"First: {typed}; or name a checkpoint with --sheets-from",
    )


@contextmanager
def _alone(folder: Path, manifest: Manifest, *, resume: bool) -> Iterator[None]:
    """Keep other trainings out of the folder, and the settings in it, before anything that takes time."""
    if not is_main():
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file, so no run can be in it.", hint="Choose another --run-dir.")
    if resume:
        read_settings(folder)
    if begun(folder):
        if not resume:
            raise UsageError(
                f"{folder} already holds a run.",
                hint="Continue it with --resume, or choose another --run-dir.",
            )
        check_settings(folder, manifest)
    with file_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock_of(folder).acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"Another process trains in {folder}.", hint="Wait for it, or choose another --run-dir."
            ) from error
    try:
        if not begun(folder):
            write_settings(folder, manifest)
        yield
    finally:
        lock_of(folder).release()


def _train(
    manifest: Manifest,
    folder: Path,
    *,
    device: torch.device,
    auxiliary: str | Path | None,
    stop: Stop,
    watcher: Watcher,
    note: Note,
) -> Outcome | None:
    from tdsnn.training import loop

    rest, held_out = load_training(manifest.dataset)
    if held_out.left_out:
        note(f"{len(held_out.left_out)} images cannot be held out; the first: {held_out.left_out[0]}")
    trainer = loop.Trainer(
        manifest, folder=folder, train=rest, held_out=held_out, device=device, auxiliary=auxiliary, stop=stop
    )
    if trainer.team.once((folder / STATE).exists):
        trainer.resume()
    note(
        f"Training {manifest.name} in {folder}: {manifest.recipe.epochs} epochs, T={trainer.model.timesteps}"
    )
    made_with = environment(trainer.device) | {"processes": trainer.processes}
    trainer.run(watcher)
    if not is_main():
        return None
    outcome = Outcome(
        name=manifest.name,
        **trainer.held_out_scores(),
        n=len(held_out.labels),
        data_digests={"train": rest.digest, "held_out": held_out.digest},
        cpu_seconds=round(trainer.cpu_seconds, 1),
        checkpoint=str(folder / CHECKPOINT),
        weights_sha256=sha256_of(folder / CHECKPOINT / WEIGHTS_FILE),
        environment=made_with,
    )
    write_outcome(folder, outcome)
    return outcome
