"""The only module that knows where zoo/, benchmarks/, cards/, the cache and the runs are."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundled(*parts: str) -> Path:
    """Path below the data shipped with the project, e.g. ``bundled("zoo", "models")``.

    A checkout is preferred; an installed wheel carries the same folders in ``tdsnn/_bundled``.
    """
    checkout = _PACKAGE.parent
    root = checkout if (checkout / "zoo" / "models").is_dir() else _PACKAGE / "_bundled"
    return root.joinpath(*parts)


def cache_dir() -> Path:
    """Folder for downloads and decoded data: ``TDSNN_CACHE``, else the user's cache folder."""
    explicit = os.environ.get("TDSNN_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "tdsnn-zoo"


def runs_dir() -> Path:
    """Folder for training runs: ``TDSNN_RUNS``, else ``runs`` in the working directory."""
    return Path(os.environ.get("TDSNN_RUNS", "runs")).expanduser()
