"""How a front handles memory: megabytes come and go with each message, and must not be new pages every time."""

from __future__ import annotations

import ctypes
import gc

__all__ = ["keep_freed_memory", "settle"]

# From glibc's malloc.h. Setting any of them also stops its guessing.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
# Freed memory above this goes back to the system.
KEEP_BYTES = 128 * 2**20
# Larger blocks are mapped and unmapped by themselves; the most that glibc allows.
MAP_ABOVE_BYTES = 32 * 2**20
GROW_BYTES = 16 * 2**20
# Objects made before the collector looks for cycles among them; each crop makes about ten, and they form none. gRPC's
# own form some: small ones, whose number is kept low so that the memory between them is used again while it is cached.
YOUNG_OBJECTS = 10_000


def keep_freed_memory() -> None:
    """Let this process use the memory of one message again for the next.

    By default glibc returns the buffers of a large message to the system, and the kernel clears new pages for the next
    one: a third of the time that receiving takes. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    mallopt(M_MMAP_THRESHOLD, MAP_ABOVE_BYTES)
    mallopt(M_TOP_PAD, GROW_BYTES)
    # Messages are freed by another thread than they were received by.
    mallopt(M_ARENA_MAX, 1)


def settle() -> None:
    """Once everything is loaded: never look again for garbage in it, and more rarely in what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
