"""What happened in a trial, in order: a digest of all of it, and words for those who read it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque

__all__ = ["Story"]

# Lines that are kept for people; the digest is over all.
KEPT_LINES = 400


class Story:
    """Takes down what happens, with its time."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._digest = hashlib.blake2b(digest_size=8)
        self._loop = asyncio.get_running_loop()

    @property
    def digest(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()

    def note(self, what: str) -> None:
        """A detail: for the digest alone."""
        self._digest.update(f"{self._loop.time():.9f} {what}\n".encode())

    def tell(self, what: str) -> None:
        """Something that people want to read."""
        self.note(what)
        self.lines.append(f"{self._loop.time():10.4f} {what}")
