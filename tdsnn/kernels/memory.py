"""What the process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
_LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of giving it back to the system; process-wide.

    Every pass asks for tensors of the same sizes. Given back in between, each page of them is mapped and
    cleared anew, which takes up to 8 % of a training step.

    Returns:
        Whether it worked: only with glibc, and for pieces below 2 GiB.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _LARGEST) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
