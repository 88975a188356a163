"""Which test images a release gets right, kept beside it so that it can be compared without its weights.

``verdicts/NAME.safetensors`` of a zoo folder has one array ``right``, the (n,) verdicts in the order of the
test split as bits (``numpy.packbits``), and a JSON text that says which weights and which images they are of.
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
from tdsnn.files import write_atomic
from tdsnn.manifest import home
from tdsnn.results import digest_of
from tdsnn.schema import Release

_SCHEMA = 1
_ARRAY = "right"
_ABOUT = "about"
_LENGTH_BYTES = 8
"""Of the number at the start of a safetensors file that says how long its JSON header is."""


@dataclass(frozen=True, kw_only=True)
class CleanVerdicts:
    """Verdicts of one network on all images of a test split, without attack."""

    weights_sha256: str
    data_digest: str
    """Content of the split."""
    right: NDArray[np.bool_]
    """(n,) whether each image is classified correctly."""

    def about(self) -> dict[str, Any]:
        """What the file says of itself; its digest covers the verdicts."""
        known = {
            "schema": _SCHEMA,
            "weights_sha256": self.weights_sha256,
            "data_digest": self.data_digest,
            "n": self.right.size,
        }
        return known | {"digest": digest_of([known, np.packbits(self.right).tobytes().hex()])}


def path_of(name: str) -> Path:
    """Where the verdicts of the entry with this full name are, or would be."""
    return home(name) / "verdicts" / f"{name}.safetensors"


def write(name: str, verdicts: CleanVerdicts) -> Path:
    """Keep the verdicts of a zoo entry, in one step."""
    path = path_of(name)
    about = json.dumps(verdicts.about(), sort_keys=True)
    # One text, because safetensors writes several in any order.
    write_atomic(path, save({_ARRAY: np.packbits(verdicts.right)}, metadata={_ABOUT: about}))
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
    bits = load(content)[_ARRAY]
    header = content[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")]
    about: Mapping[str, Any] = json.loads(json.loads(header)["__metadata__"][_ABOUT])
    if about["schema"] != _SCHEMA:
        raise ValueError(f"they are not of schema {_SCHEMA}")
    if bits.size * 8 - 7 > about["n"] or about["n"] > bits.size * 8:
        raise ValueError(f"{bits.size} bytes do not hold the verdicts on {about['n']} images")
    found = CleanVerdicts(
        weights_sha256=about["weights_sha256"],
        data_digest=about["data_digest"],
        right=np.unpackbits(bits, count=about["n"]).astype(bool),
    )
    # Packed again, so that bits beyond the last image count too.
    if about != found.about() or not np.array_equal(np.packbits(found.right), bits):
        raise ValueError("their content differs from its digest")
    return found
