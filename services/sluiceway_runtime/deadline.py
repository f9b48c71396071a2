"""A deadline as a value: made once where a request enters, handed on, never renewed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sluiceway_runtime.clock import monotonic

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment on the monotonic clock, `clock.monotonic()` seconds, so that setting the clock moves no deadline."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment `seconds` from now."""
        return cls(monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left, negative once it has passed."""
        return self.at_s - monotonic()

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s() <= 0
