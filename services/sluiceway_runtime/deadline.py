"""A deadline as a value: made once where a request enters, handed on, never renewed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment on the monotonic clock, `time.monotonic()` seconds, so that setting the clock moves no deadline."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left, negative once it has passed."""
        return self.at_s - time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s() <= 0
