"""How a release does on each test image, kept beside it so that it can be compared without its weights.

``verdicts/NAME.safetensors`` of a zoo folder has one array, the (n,) scores in the order of the test split:
``right``, bits (``numpy.packbits``) that say which images are answered right, or ``scores``, fp32, of a task
that is not only right or wrong; and a JSON text that says which weights and which images they are of.
Equal verdicts give equal bytes. Publishing a run writes the file; one that is about other weights than the
release has now counts as not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tdsnn.errors import IntegrityError
from tdsnn.files import digest_of, parse_json, write_atomic
from tdsnn.manifest import home
from tdsnn.schema import Release

_SCHEMA = 1
_BITS, _SCORES = "right", "scores"
_FIRST_TASK = "classification"
"""Of files that name no task."""
_ABOUT = "about"
_LENGTH_BYTES = 8
"""Of the number at the start of a safetensors file that says how long its JSON header is."""


@dataclass(frozen=True, kw_only=True)
class CleanVerdicts:
    """Verdicts of one network on all images of a test split, without attack."""

    weights_sha256: str
    data_digest: str
    """Content of the split."""
    scores: NDArray[np.bool_ | np.float32]
    """(n,) score of each image by the task; of a classifier whether it is right."""
    task: str = _FIRST_TASK
    """Name of what was learned, of :mod:`tdsnn.tasks`."""

    def about(self) -> dict[str, Any]:
        """What the file says of itself; its digest covers the verdicts."""
        known = {
            "schema": _SCHEMA,
            "weights_sha256": self.weights_sha256,
            "data_digest": self.data_digest,
            "n": self.scores.size,
            **({} if self.task == _FIRST_TASK else {"task": self.task}),
        }
        (array,) = self.arrays().values()
        return known | {"digest": digest_of([known, array.tobytes().hex()])}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The one array of the file."""
        if self.scores.dtype == np.bool_:
            return {_BITS: np.packbits(self.scores.astype(bool))}
        return {_SCORES: self.scores.astype("<f4")}


def path_of(name: str) -> Path:
    """Where the verdicts of the entry with this full name are, or would be."""
    return home(name) / "verdicts" / f"{name}.safetensors"


def write(name: str, verdicts: CleanVerdicts) -> Path:
    """Keep the verdicts of a zoo entry, in one step."""
    path = path_of(name)
    about = json.dumps(verdicts.about(), sort_keys=True)
    # One text, because safetensors writes several in any order.
    write_atomic(path, save(verdicts.arrays(), metadata={_ABOUT: about}))
    return path


def read(release: Release) -> CleanVerdicts | None:
    """Verdicts of the released weights; None if none are stored, or only those of other weights.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = path_of(release.name)
    if not path.is_file():
        return None
    try:
        found = _parse(path.read_bytes())
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"The stored verdicts '{path}' cannot be read: {error}.",
            hint="Restore the file from git, or publish the run again: tdsnn-zoo publish RUN_DIR",
        ) from error
    return found if found.weights_sha256 == release.weights_sha256 else None


def _parse(content: bytes) -> CleanVerdicts:
    ((name, array),) = load(content).items()
    header = content[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")]
    about: Mapping[str, Any] = parse_json(parse_json(header)["__metadata__"][_ABOUT])
    if about["schema"] != _SCHEMA:
        raise ValueError(f"they are not of schema {_SCHEMA}")
    if name == _BITS:
        if array.size * 8 - 7 > about["n"] or about["n"] > array.size * 8:
            raise ValueError(f"{array.size} bytes do not hold the verdicts on {about['n']} images")
        scores = np.unpackbits(array, count=about["n"]).astype(bool)
    else:
        scores = array
    found = CleanVerdicts(
        weights_sha256=about["weights_sha256"],
        data_digest=about["data_digest"],
        scores=scores,
        task=about.get("task", _FIRST_TASK),
    )
    # Packed again, so that bits beyond the last image count too.
    packed = found.arrays()
    if about != found.about() or [*packed] != [name] or not np.array_equal(packed[name], array):
        raise ValueError("their content differs from its digest")
    return found
