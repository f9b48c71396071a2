"""Where a pool's time comes from: the event loop, or in tests a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """A call that is due."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Clock(Protocol):
    """Monotonic time, on which deadlines stand too."""

    def now_s(self) -> float:
        """Seconds since some moment."""
        ...

    def call_at(self, at_s: float, callback: Callable[[], None]) -> Timer:
        """Call once `now_s()` has reached `at_s`."""
        ...


class LoopClock:
    """The running event loop's time, which is `time.monotonic()`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now_s(self) -> float:
        """Seconds on the monotonic clock."""
        return self._loop.time()

    def call_at(self, at_s: float, callback: Callable[[], None]) -> Timer:
        """Through the loop."""
        return self._loop.call_at(at_s, callback)
