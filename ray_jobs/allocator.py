"""Memory that a step frees is kept for the next one, where the C library can be told so.

glibc gives large blocks back at once, and every page of them is asked of the system
again at the next step: a fifth of the time of a small network's training, and a tenth of
that of a service's large requests.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers what mallopt can set
KEPT = 1 << 30  # bytes free at the end of the heap before any of them go back
LARGE = 1 << 28  # bytes from which a block is asked of the system by itself, and goes back to it
# In the environment of a process whose steps are taken by another thread than its first, as
# Ray Train's are: glibc would give that one heaps of 64 MiB, outside of which larger blocks lie.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


def keep_freed(most: int = KEPT) -> bool:
    """From here on this process keeps what it frees, up to `most` bytes at the end of its heap.

    False where its C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(MMAP_THRESHOLD, LARGE) and library.mallopt(TRIM_THRESHOLD, most))
