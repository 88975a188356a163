"""Which images of a split are used, where they are not the first ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdsnn import paths
from tdsnn.data._base import Split
from tdsnn.errors import UsageError
from tdsnn.table import FIRST_IMAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST, RANDOM = "first", "random"
_DIGITS = 19
"""Numbers with fewer are 64 bits wide."""
Selection = str | os.PathLike[str] | Sequence[int]
_HINT = (
    "Write first, random, random:SEED, or a file with one index of a test image on each line, counted from 0."
)


def selected(split: Split, selection: Selection, *, n: int | None, otherwise: int) -> tuple[Split, int, str]:
    """The split that is asked for, how many of its first images are meant, and what they are in words.

    Args:
        selection: ``first``; ``random`` or ``random:SEED``, which draws without replacement (seed 0 by
            default); a text file with one index on each line; or the indices. Indices are into the split as
            it is given.
        n: number of images; None for ``otherwise``, or for all that are listed.

    Raises:
        UsageError: neither, an index that the split has not, one twice, or an ``n`` beside a list.
    """
    import numpy as np

    name = selection if isinstance(selection, str) else None
    if name == FIRST:
        return split, otherwise if n is None else n, FIRST_IMAGES
    if name is not None and name.partition(":")[0] == RANDOM:
        seed = _seed(name)
        count = otherwise if n is None else n
        if not 1 <= count <= len(split.labels):
            return split, count, ""  # as wrong as it is among the first ones
        # RandomState, because numpy promises its stream for ever and default_rng's may change (NEP 19).
        places = np.random.RandomState(seed).permutation(len(split.labels))[:count]
        words = f"n images of the split, drawn with seed {seed}"
    else:
        places, words = _listed(selection), "n images of the split, by a list of indices"
        count = len(places)
        if n is not None and n != count:
            raise UsageError(f"The list has {count} indices, and n is {n}.", hint="Leave n out.")
        if places.min() < 0 or places.max() >= len(split.labels) or len(np.unique(places)) < count:
            raise UsageError(
                f"Indices of test images are different numbers from 0 to {len(split.labels) - 1}.", hint=_HINT
            )
    return split.select(np.sort(places), name=words), count, words


def _seed(text: str) -> int:
    _, colon, seed = text.partition(":")
    if colon and not (seed.isdecimal() and len(seed) < _DIGITS and int(seed) < 2**32):
        raise UsageError(f"'{text}' names no seed: that is a whole number below 2^32.", hint=_HINT)
    return int(seed or 0)


def _listed(selection: Selection) -> NDArray[np.int64]:
    import numpy as np

    if isinstance(selection, str | os.PathLike):
        path = paths.expanded(os.fspath(selection))
        try:
            lines: Sequence[object] = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"'{selection}' is no selection of images, and cannot be read as a list of them.", hint=_HINT
            ) from error
    else:
        lines = list(selection)
    if not lines or not all(str(line).isdecimal() and len(str(line)) < _DIGITS for line in lines):
        raise UsageError("A list of test images has whole numbers from 0 on, and at least one.", hint=_HINT)
    return np.array([int(str(line)) for line in lines], dtype=np.int64)
