"""Shared memory that is used again, batch after batch, so that its pages are made and mapped once.

A fresh memfd costs a page fault or a cleared page for every 4 KiB, which is more than copying them. The sender of
batches therefore keeps a few arenas, one for each batch that may be on its way, and the receiver keeps them mapped.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from sluiceway_runtime.pool.payload import Buffer

__all__ = ["Arena", "Arenas"]

# Batches above this are rare, and get memory of their own rather than keep so much for ever.
MAX_BYTES = 64 * 2**20
MIN_BYTES = 2**20


class Arena:
    """Memory for one message at a time. It owns the mapping until `close`.

    Attributes:
        slot: its number, by which the receiver knows it; an arena that comes later with the same number replaces it.
        size: bytes.
        descriptor: to be handed over with the first message; None once that is done.
    """

    def __init__(self, slot: int, size: int) -> None:
        self.slot = slot
        self.size = size
        descriptor = os.memfd_create("sluiceway-arena", os.MFD_CLOEXEC)
        try:
            # Makes the pages, so that a lack of memory is an error here and not a SIGBUS at some later access.
            os.posix_fallocate(descriptor, 0, size)
            self._map = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            os.close(descriptor)
            raise
        self._view = memoryview(self._map)
        self.descriptor: int | None = descriptor

    def write(self, pieces: Iterable[tuple[int, Buffer]]) -> None:
        """Copy pieces to their offsets."""
        view = self._view
        for offset, piece in pieces:
            view[offset : offset + len(piece)] = piece

    def close(self) -> None:
        """Unmap it; the receiver still has its own mapping."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        self._view.release()
        self._map.close()


class Arenas:
    """The arenas of one receiver.

    Args:
        count: most messages on their way at a time; one more finds no arena.
    """

    def __init__(self, count: int) -> None:
        self._free: list[Arena | None] = [None] * count
        self._lent: dict[int, tuple[int, Arena]] = {}
        self._slots = list(range(count))

    def take(self, tag: int, size: int) -> Arena | None:
        """An arena for a message until `give_back`, None if it has to go without.

        Args:
            tag: of the message.
            size: bytes that it needs.

        Raises:
            OSError: no descriptor or memory is left.
        """
        if size > MAX_BYTES or not self._slots or tag in self._lent:
            return None
        slot = self._slots.pop()
        arena, self._free[slot] = self._free[slot], None
        try:
            if arena is None or arena.size < size:
                if arena is not None:
                    arena.close()
                arena = Arena(slot, max(MIN_BYTES, 1 << (size - 1).bit_length()))
        except BaseException:
            self._slots.append(slot)
            raise
        self._lent[tag] = (slot, arena)
        return arena

    def give_back(self, tag: int, *, whole: bool = True) -> None:
        """The receiver is done with a message, if it had an arena.

        Args:
            tag: of the message.
            whole: False if the receiver may not have got the arena itself; then it is not used again.
        """
        if tag not in self._lent:
            return
        slot, arena = self._lent.pop(tag)
        self._slots.append(slot)
        if whole:
            self._free[slot] = arena
        else:
            arena.close()

    def close(self) -> None:
        """Unmap all of them."""
        for arena in (*self._free, *(arena for _, arena in self._lent.values())):
            if arena is not None:
                arena.close()
        self._free = [None] * len(self._free)
        self._lent.clear()
        self._slots.clear()
