"""How a front handles memory: megabytes come and go with each message, and must not be new pages every time."""

from __future__ import annotations

import ctypes
import gc

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.resident import held_bytes

__all__ = ["give_back_freed", "keep_freed_memory", "settle"]

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
# Freed memory between what is in use: more than this, or than this part of a budget, goes back to the system. It is
# looked at whenever half as much was given back: by then no more than that can have come to it.
KEEP_BETWEEN_BYTES = 64 * 2**20
KEEP_BETWEEN_SHARE = 1 / 8


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


def give_back_freed(budget: MemoryBudget) -> None:
    """From now on give memory back to the system that is free, but lies between what is in use.

    Large messages that are read beside each other leave holes: gRPC's pieces of one lie between those of others, and a
    message that is put together finds no place among them. Without this a process is found at 2.3 times the bytes that
    it was asked to hold, and a container is killed for memory that nobody uses. glibc gives back by itself only what is
    free at the end of its heap. Without glibc nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    process_bytes = held_bytes() - budget.used_bytes
    keep_bytes = max(KEEP_BETWEEN_BYTES, int(budget.total_bytes * KEEP_BETWEEN_SHARE))
    # What trimming cannot give back: memory that is in use and not counted. It is not tried again for that.
    in_use_bytes = 0

    def uncounted_bytes() -> int:
        return held_bytes() - process_bytes - budget.used_bytes

    def look() -> None:
        nonlocal in_use_bytes
        more_bytes = uncounted_bytes()
        in_use_bytes = max(0, min(in_use_bytes, more_bytes))
        if more_bytes - in_use_bytes <= keep_bytes:
            return
        trim(0)
        if uncounted_bytes() - in_use_bytes > keep_bytes:
            # An error and the frames that it came through may know each other, and with them a message that is counted
            # no longer. Ours take care not to; those of a library need not, and the collector comes by objects, not by
            # bytes. Last, as it keeps the event loop waiting.
            gc.collect()
            trim(0)
        in_use_bytes = max(0, uncounted_bytes())

    budget.watch_freed(keep_bytes // 2, look)


def settle() -> None:
    """Once everything is loaded: never look again for garbage in it, and more rarely in what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
