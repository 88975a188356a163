"""What a sweep runs: a hand-written TOML file, expanded into runs with a folder each.

::

    summary = "What the sweep is for."
    seeds = [0, 1, 2]                      # of every entry below, unless it names its own
    settings = ["epochs=2"]                # as of `tdsnn-zoo train --set`, for every run

    [[runs]]
    entry = "sresnet18.fashion_mnist"      # full name of a zoo entry

    [[runs]]
    entry = "tsresnet18.fashion_mnist"
    label = "alpha-0.1"                    # part of the folder's name; needed where an entry stands twice
    settings = ["topography.alpha=0.1"]    # after those above

    [slurm]                                # what each job of a cluster asks for, see SlurmOptions
    partition = "gpu"
    gpus = 1

Runs are started in the order of the file, all entries of the first seed first. A topographic run whose sheets
are arranged by its twin waits for the twin if that is part of the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from tdsnn import manifest as manifests
from tdsnn import paths, store
from tdsnn.errors import UsageError
from tdsnn.files import read_toml
from tdsnn.schema import Manifest, Table, plain
from tdsnn.topography.positions import PREPARATION
from tdsnn.training.recipe import override
from tdsnn.training.state import begun, check_settings
from tdsnn.validation import check

_Label = Annotated[
    str, Meta(pattern=r"^[\w.-]{0,60}\Z", description="a label that can be part of a folder's name")
]
_Seeds = Annotated[tuple[Annotated[int, Meta(ge=0, le=manifests.LAST_SEED)], ...], Meta(min_length=1)]


class _Block(Table, frozen=True, kw_only=True):
    """One of ``[[runs]]``."""

    entry: str
    label: _Label = ""
    seeds: _Seeds | None = None
    settings: tuple[str, ...] = ()


class SlurmOptions(Table, frozen=True, kw_only=True):
    """What each job of a Slurm cluster asks for; what is empty or 0 is left to the cluster."""

    partition: str = ""
    minutes: Annotated[int, Meta(ge=5, le=1_000_000)] = 60
    """Until the job goes back into the queue; its trainings go on where they were."""
    gpus: Annotated[int, Meta(ge=0, le=1)] = 0
    """A training of a sweep runs on one."""
    cpus: Annotated[int, Meta(ge=1, le=10_000)] = 1
    memory_gb: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    account: str = ""
    qos: str = ""
    constraint: str = ""
    setup: tuple[str, ...] = ()
    """Lines of shell before the job begins, e.g. ``module load cuda``."""


class _File(Table, frozen=True, kw_only=True):
    """A sweep file."""

    summary: str = ""
    seeds: _Seeds = (0,)
    settings: tuple[str, ...] = ()
    runs: Annotated[tuple[_Block, ...], Meta(min_length=1)]
    slurm: SlurmOptions = SlurmOptions()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    entry: str
    """Full name of the zoo entry, with its seed."""
    label: str
    settings: tuple[str, ...]
    manifest: Manifest
    """The entry's, with the settings."""
    folder: Path
    waits_for: str = ""
    """Name of the run of this sweep whose weights arrange the sheets; empty if there is none to wait for."""

    @property
    def name(self) -> str:
        """Name of the run, which is that of its folder."""
        return self.folder.name


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file."""

    path: Path
    summary: str
    runs: tuple[Run, ...]
    slurm: SlurmOptions

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def folder(self) -> Path:
        """The parent of all run folders."""
        return self.runs[0].folder.parent


def read_sweep(path: Path, *, folder: Path | None = None) -> Sweep:
    """Read and check a sweep file and the run folders that exist already.

    Args:
        folder: parent of the run folders; by default the one of all runs, named like the file.

    Raises:
        UsageError: no such file, an unknown key, entry or setting, two runs of one name, a topographic run
            whose twin is neither in the sweep nor released, or a folder that holds a run of other settings.
        IntegrityError: a run folder whose settings cannot be read.
    """
    file = _read(path)
    parent = folder or paths.runs_dir() / path.stem
    if parent.exists() and not parent.is_dir():
        raise UsageError(f"'{parent}' is no folder.", hint="Choose another --run-dir.")
    runs = [
        (order, index, _run(path, block, seed, file.settings, parent))
        for index, block in enumerate(file.runs)
        for order, seed in enumerate(block.seeds or file.seeds)
    ]
    ordered = [run for _, _, run in sorted(runs, key=lambda item: item[:2])]
    names = [run.name for run in ordered]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise _broken(path, f"has two runs called '{twice}'", hint="Give one of them a label or other seeds.")
    for run in ordered:
        if begun(run.folder):
            check_settings(run.folder, run.manifest)
    return Sweep(
        path=path,
        summary=file.summary,
        runs=tuple(_with_twin(run, ordered) for run in ordered),
        slurm=file.slurm,
    )


def slurm_options(sweep: Sweep, settings: Sequence[str]) -> SlurmOptions:
    """The options of a sweep file with ``key=value`` settings applied.

    Raises:
        UsageError: an unknown key, or a value of another type or out of range.
    """
    changes = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(
                f"'{setting}' is not of the form key=value.", hint="Example: --slurm minutes=600"
            )
        changes[key.strip()] = [text] if key.strip() == "setup" else text
    table = plain(sweep.slurm) | changes
    return check(table, SlurmOptions, name="--slurm", typed=True, hint="Known keys: see tdsnn-zoo sweep -h")


def _read(path: Path) -> _File:
    if not path.is_file():
        raise UsageError(f"There is no sweep file '{path}'.", hint="Those of the project: ls zoo/sweeps")
    try:
        document = read_toml(path)
    except (OSError, ValueError) as error:
        raise _broken(path, f"cannot be read: {error}") from error
    return check(document, _File, name=f"The sweep '{path}'", hint=f"Edit {path}; see tdsnn-zoo sweep -h")


def _run(path: Path, block: _Block, seed: int, shared: tuple[str, ...], parent: Path) -> Run:
    base = manifests.resolve(block.entry)
    if manifests.entry_and_seed(base.name)[1]:
        raise _broken(path, f"names '{base.name}', a seed", hint="Name the entry, and list its seeds.")
    entry = manifests.seeded(base.name, seed)
    settings = (*shared, *block.settings)
    for setting in settings:
        if setting.partition("=")[0].strip().rpartition(".")[2] in ("seed", "sheet_seed"):
            raise _broken(path, f"sets '{setting}'", hint="Seeds go into the list 'seeds'.")
    manifest = override(manifests.resolve(entry), settings)
    folder = parent / (f"{entry}+{block.label}" if block.label else entry)
    return Run(entry=entry, label=block.label, settings=settings, manifest=manifest, folder=folder)


def _with_twin(run: Run, runs: list[Run]) -> Run:
    ours = run.manifest
    if not ours.topographic or ours.topography.preparation != PREPARATION:
        return run
    same = ("architecture", "arguments", "dataset", "recipe")
    for other in runs:
        theirs = other.manifest
        if (
            other.entry == ours.twin
            and not theirs.topographic
            and all(getattr(ours, key) == getattr(theirs, key) for key in same)
        ):
            return replace(run, waits_for=other.name)
    if store.available(ours.twin) is None:
        raise UsageError(
            f"The run '{run.name}' needs the weights of its twin '{ours.twin}', which were not released.",
            hint=f'Add the twin to the sweep with the same settings: entry = "{ours.twin}"',
        )
    return run


def _broken(path: Path, reason: str, *, hint: str = "") -> UsageError:
    return UsageError(f"The sweep '{path}' {reason}.", hint=hint or f"Edit {path}")
