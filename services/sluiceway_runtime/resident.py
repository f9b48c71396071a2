"""How much memory this process holds."""

from __future__ import annotations

import os

__all__ = ["held_bytes", "own_bytes"]

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STATM = "/proc/self/statm"


def held_bytes() -> int:
    """Resident memory of this process, what it shares with others included."""
    return _read()[0]


def own_bytes() -> int:
    """Resident memory of this process that is its own; 0 if there is no descriptor left to ask with.

    What it shares with the front, or with the page cache, is not freed by ending it. The payloads that are on their way
    lie there, so a worker would be taken to be too large for one large picture.
    """
    try:
        resident_bytes, shared_bytes = _read()
    except OSError:
        return 0
    return resident_bytes - shared_bytes


def _read() -> tuple[int, int]:
    """By bare system calls: it is asked after every batch and every few requests, and answers wait for it."""
    descriptor = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
    try:
        resident, shared = os.read(descriptor, 256).split()[1:3]
    finally:
        os.close(descriptor)
    return int(resident) * PAGE_BYTES, int(shared) * PAGE_BYTES
