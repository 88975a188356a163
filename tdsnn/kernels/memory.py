"""What the process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from functools import cache

_OPTIONS = {-4: 0, -1: -1}
"""Of glibc's malloc.h: M_MMAP_MAX 0 turns mappings of single pieces off, M_TRIM_THRESHOLD -1 trimming."""

_DEFAULTS = {-4: 65_536, -1: 131_072}


@cache
def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of giving it back to the system; process-wide.

    Every pass asks for tensors of the same sizes. Given back in between, each page of them is mapped and
    cleared anew, which takes up to 8 % of a training step.

    Returns:
        Whether it worked; only glibc can do it.
    """
    return _set(_OPTIONS)


def give_back_freed_memory() -> bool:
    """Undo :func:`keep_freed_memory` in a process that was forked: one that decodes pictures of all sizes
    would keep 400 MB of which it uses 50.

    Returns:
        Whether it worked; only glibc can do it.
    """
    return _set(_DEFAULTS)


def _set(options: Mapping[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) == 1 for option, value in options.items())
