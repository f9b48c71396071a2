"""Shared memory that is used again, batch after batch, so that its pages are made and mapped once.

A fresh memfd costs a page fault or a cleared page for every 4 KiB, which is more than copying them. The sender of
batches therefore keeps a few arenas, one for each batch that may be on its way, and the receiver keeps them mapped,
until they have not been needed for a while.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sluiceway_runtime.pool.payload import Buffer
from sluiceway_runtime.pool.transport.memory import map_shared

__all__ = ["Arena", "Arenas"]

# Batches above this are rare, and get memory of their own rather than keep so much.
MAX_BYTES = 64 * 2**20
MIN_BYTES = 2**20
# An arena that no message has filled by half for so long goes.
IDLE_S = 10.0


class Arena:
    """Memory for one message at a time. It is unmapped when whoever writes to it is done and it is `closed`.

    Attributes:
        number: by which the receiver knows it; an arena that comes later with the same number replaces it.
        size: bytes.
        descriptor: to be handed over with the first message; None before it is made, and once that is done.
        needed_s: when a message last filled more than half of it.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.descriptor: int | None = None
        self.needed_s = 0.0
        self._view: memoryview | None = None

    @property
    def made(self) -> bool:
        """Whether it can be written to."""
        return self._view is not None

    def make(self) -> None:
        """Get the memory: a third of a millisecond or more for each MiB, so large ones are made in a thread.

        Raises:
            OSError: no descriptor or memory is left.
        """
        descriptor = os.memfd_create("sluiceway-arena", os.MFD_CLOEXEC)
        try:
            # Makes the pages, so that a lack of memory is an error here and not a SIGBUS at some later access.
            os.posix_fallocate(descriptor, 0, self.size)
            self._view = map_shared(descriptor, self.size, writable=True)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def write(self, pieces: Iterable[tuple[int, Buffer]]) -> None:
        """Copy pieces to their offsets."""
        view = self._view
        assert view is not None, "it is made first"
        for offset, piece in pieces:
            view[offset : offset + len(piece)] = piece

    def close(self) -> None:
        """Let go of it; the receiver still has its own mapping."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        self._view = None


class Arenas:
    """The arenas of one receiver.

    Args:
        count: most messages on their way at a time; one more finds no arena.
    """

    def __init__(self, count: int) -> None:
        # By number, of those that no message is in.
        self._free: dict[int, Arena | None] = dict.fromkeys(range(count))
        self._lent: dict[int, Arena] = {}

    def take(self, tag: int, size: int, now: float = 0.0) -> Arena | None:
        """An arena for a message until `give_back`, None if it has to go without. It may have to be made first.

        Args:
            tag: of the message.
            size: bytes that it needs.
            now: on the sender's clock.
        """
        if size > MAX_BYTES or not self._free or tag in self._lent:
            return None
        # The smallest that is large enough; else one that is too small goes, so that few are kept.
        fits = [arena for arena in self._free.values() if arena is not None and arena.size >= size]
        if fits:
            arena = min(fits, key=lambda arena: arena.size)
        else:
            number = max(self._free, key=lambda number: self._free[number] is not None)
            if (old := self._free[number]) is not None:
                old.close()
            arena = Arena(number, _rounded(size))
        del self._free[arena.number]
        if 2 * size > arena.size:
            arena.needed_s = now
        self._lent[tag] = arena
        return arena

    def give_back(self, tag: int, *, whole: bool = True) -> None:
        """The receiver is done with a message, if it had an arena.

        Args:
            tag: of the message.
            whole: False if the receiver may not have got the arena itself; then it is not used again.
        """
        arena = self._lent.pop(tag, None)
        if arena is None:
            return
        if not whole:
            arena.close()
        self._free[arena.number] = arena if whole else None

    def trim(self, now: float) -> tuple[int, ...]:
        """Let go of those that have not been needed for a while; returns their numbers, for the receiver to do so."""
        idle = [
            arena
            for arena in self._free.values()
            if arena is not None and arena.size > MIN_BYTES and now - arena.needed_s >= IDLE_S
        ]
        for arena in idle:
            arena.close()
            self._free[arena.number] = None
        return tuple(arena.number for arena in idle)

    @property
    def trimmable(self) -> bool:
        """Whether `trim` may find something, sooner or later."""
        return any(
            arena.size > MIN_BYTES for arena in (*self._free.values(), *self._lent.values()) if arena is not None
        )

    def close(self) -> None:
        """Let go of all of them."""
        for arena in (*self._free.values(), *self._lent.values()):
            if arena is not None:
                arena.close()
        self._free.clear()
        self._lent.clear()


def _rounded(size: int) -> int:
    """Somewhat more, so that messages that grow a little find room: a quarter at most."""
    if size <= MIN_BYTES:
        return MIN_BYTES
    step = 1 << (size.bit_length() - 3)
    return -(-size // step) * step
