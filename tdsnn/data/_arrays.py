"""Arrays of ``.npy`` files, mapped from disk."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.errors import IntegrityError

_DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, OverflowError, MemoryError)
"""What NumPy's reader of headers, a Python expression each, makes of bytes that are none."""


def open_array(path: Path, *, hint: str = "") -> NDArray[Any]:
    """One array, read-only; nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        IntegrityError: it is no ``.npy`` file of one array, or is cut off.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (*_DAMAGED, RecursionError, tokenize.TokenError) as error:
        raise IntegrityError(f"{path} is no array of NumPy: {error}.", hint=hint) from error
    if not isinstance(found, np.ndarray):
        raise IntegrityError(f"{path} holds several arrays, not one.", hint="Save each as .npy.")
    return found
