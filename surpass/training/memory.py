"""What the C library does with memory that is freed: keep it, for the next update needs it again.

An update allocates the same buffers at every call. By default glibc hands large ones back to the
system, which must then clear and map their pages anew, at every update: on a CQL step that took a
third of the time.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names that malloc.h gives to glibc's options
_LARGEST = 32 << 20  # the largest block that glibc can be told to serve from its heap
_KEPT = (1 << 31) - 1


@cache
def keep_freed_memory() -> bool:
    """Let this process reuse what it frees, up to 2 GiB; whether the C library knows how.

    Once per process; elsewhere than on glibc nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _KEPT))
