"""What goes to a worker and what comes back: small picklable facts beside large buffers that are never pickled."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any, NamedTuple

__all__ = ["Buffer", "Payload"]

Buffer = bytes | bytearray | memoryview


class Payload(NamedTuple):
    """One item on its way to a worker, or one result on its way back.

    Attributes:
        meta: small and picklable: options, shapes, lists of boxes. Nothing in it should differ between two tries of the
            same item (no request id, no time), or the quarantine does not recognise a repeated killer.
        buffers: pixels, file bytes, arrays; bytes-like and C-contiguous.

    Ownership:
        The sender's buffers must stay unchanged until the item is answered: a crash means that they are sent again.
        The receiver gets read-only memoryviews. In a worker they are valid until its batch is answered: then the memory
        may be used for another batch, so whoever keeps a part copies it (`bytes(view)`). In the front, those of large
        results look into one shared mapping, which is unmapped when the last view of that batch is gone.
    """

    meta: Any
    buffers: tuple[Buffer, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Sum of the buffers; the facts are taken to be small."""
        total = 0
        for buffer in self.buffers:
            total += (buffer if type(buffer) is memoryview else memoryview(buffer)).nbytes
        return total

    def digest(self) -> str:
        """A hash of the content, by which a quarantined item is known again and named in the log."""
        try:
            facts = pickle.dumps(self.meta, protocol=5)
        except Exception:  # it will fail when it is sent; until then any name will do
            facts = repr(self.meta).encode()
        content = hashlib.blake2b(facts, digest_size=16)
        for buffer in self.buffers:
            content.update(memoryview(buffer).nbytes.to_bytes(8, "little"))
            content.update(buffer)
        return content.hexdigest()

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # Pickle protocol 5 hands PickleBuffers to its caller instead of copying them into the stream.
        return Payload, (self.meta, tuple([pickle.PickleBuffer(buffer) for buffer in self.buffers]))
