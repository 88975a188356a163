"""The only module that knows where zoo/, benchmarks/, cards/, the cache and the runs are."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from tdsnn.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def bundled(*parts: str) -> Path:
    """Path below the data shipped with the project, e.g. ``bundled("zoo", "models")``.

    A checkout is preferred; an installed wheel carries the same folders in ``tdsnn/_bundled``.
    """
    checkout = _PACKAGE.parent
    root = checkout if (checkout / "zoo" / "models").is_dir() else _PACKAGE / "_bundled"
    return root.joinpath(*parts)


def zoo_folders() -> tuple[Path, ...]:
    """Folders of zoo entries, in the order in which they are searched: ``TDSNN_ZOO``, then the project's own.

    Raises:
        UsageError: ``TDSNN_ZOO`` is no folder.
    """
    own = bundled("zoo")
    given = os.environ.get("TDSNN_ZOO")
    if not given:
        return (own,)
    folder = expanded(given, variable="TDSNN_ZOO")
    if not folder.is_dir():
        raise UsageError(
            f"TDSNN_ZOO names '{given}', which is no folder.",
            hint=f"Make it with mkdir -p {quote(f'{given}/models')}",
        )
    return (own,) if folder.resolve() == own.resolve() else (folder, own)


def is_checkout() -> bool:
    """Whether the code runs from a checkout of the project, whose zoo/ may be written."""
    return bundled() != _PACKAGE / "_bundled"


def install_command(extra: str) -> str:
    """What to type for the packages of an optional part, ``train``, ``export`` or ``slurm``."""
    return (
        f"pip install -e {quote(f'{bundled()}[{extra}]')}"
        if is_checkout()
        else f"pip install 'tdsnn-zoo[{extra}]'"
    )


def cache_dir() -> Path:
    """Folder for downloads and decoded data: ``TDSNN_CACHE``, else the user's cache folder."""
    explicit = os.environ.get("TDSNN_CACHE")
    if explicit:
        return expanded(explicit, variable="TDSNN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return expanded(base, variable="XDG_CACHE_HOME") / "tdsnn-zoo"
    try:
        return Path.home() / ".cache" / "tdsnn-zoo"
    except RuntimeError as error:
        raise UsageError(
            "There is no place for the cache: the environment has no HOME, and this user no folder.",
            hint="Name one: export TDSNN_CACHE=DIR",
        ) from error


def runs_dir() -> Path:
    """Folder for training runs: ``TDSNN_RUNS``, else ``runs`` in the working directory."""
    return expanded(os.environ.get("TDSNN_RUNS", "runs"), variable="TDSNN_RUNS")


def data_dir() -> Path | None:
    """Local mirror of datasets, ``TDSNN_DATA``; None if there is none."""
    given = os.environ.get("TDSNN_DATA")
    return expanded(given, variable="TDSNN_DATA") if given else None


def expanded(text: str, *, variable: str | None = None) -> Path:
    """A path as people write it, ``~`` and ``~user`` replaced by a home folder.

    Args:
        variable: of the environment, that the text is from.

    Raises:
        UsageError: no such user, or one without a home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        place = f"{variable} names '{text}'" if variable else f"There is no path '{text}'"
        raise UsageError(
            f"{place}: there is no home folder for '{Path(text).parts[0]}'.",
            hint=f"Write the path out: {f'export {variable}=' if variable else ''}/...",
        ) from error
