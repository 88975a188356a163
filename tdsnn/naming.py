"""What a model's name means. Nothing here needs torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from shlex import quote

from tdsnn import hub, paths
from tdsnn.errors import UsageError
from tdsnn.manifest import full_name


def parse(name: str | os.PathLike[str]) -> str | Path | hub.Reference:
    """What a model's name means, the same in every function and command.

    ====================================  ==================================================================
    ``hf:owner/name[@revision]``          a repository of a Hub
    ``owner/name[@revision]``             the same, if there is no such folder
    a ``Path``, or other text with ``/``  the folder of a checkpoint; one beside you is ``./name``
    anything else                         a zoo entry: full name, other seed, or bare name
    ====================================  ==================================================================

    Returns:
        The full name of an entry, a folder, which need not exist, or a repository.

    Raises:
        UsageError: no such entry, or a repository that can be on no Hub.
    """
    if not isinstance(name, str):
        return paths.expanded(os.fspath(name))
    if hub.is_reference(name):
        return hub.Reference.parse(name)
    folder = paths.expanded(name)
    if os.sep in name or name in (".", "..", "~"):
        return folder if is_folder(folder) else _repository(name) or folder
    try:
        return full_name(name)
    except UsageError as error:
        if is_folder(folder):
            error.hint = f"The folder of that name: {quote(f'./{name}')}"
        raise


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; no for a path that is too long, or below a folder that is closed."""
    with suppress(OSError):
        return path.is_dir()
    return False


def _repository(text: str) -> hub.Reference | None:
    try:
        return hub.Reference.parse(text)
    except UsageError:
        return None
