"""What glibc's heap keeps: nothing of what loading a model left behind, but the pages that every image needs again."""

from __future__ import annotations

import ctypes

__all__ = ["settle_heap"]

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest that glibc accepts for blocks of the heap itself; larger blocks come from the system and go back to it.
_LARGEST_BLOCK_BYTES = 32 * 2**20
_KEPT_BYTES = 64 * 2**20


def settle_heap() -> None:
    """Give back what is free now, and from now on keep the memory of an image for the next one.

    By default the megabytes of a decoded image go back to the system after each image, and the next one pays a page
    fault for every 4 kB of it: a third of the time that decoding takes.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim") or not hasattr(libc, "mallopt"):  # musl has neither
        return
    libc.malloc_trim(0)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
