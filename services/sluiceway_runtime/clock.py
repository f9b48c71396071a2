"""The monotonic time that deadlines, ages and holds stand on, in one place: a simulation puts its own in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["monotonic", "next_beat", "running_on"]

_now: Callable[[], float] = time.monotonic


def monotonic() -> float:
    """Seconds since some moment; setting the machine's clock moves them not. The time of every event loop is this."""
    return _now()


def next_beat(now_s: float, interval_s: float) -> float:
    """When whoever looks every so often looks next: all of a process at the same moments, so that it wakes up once."""
    return (math.floor(now_s / interval_s) + 1) * interval_s


@contextmanager
def running_on(now: Callable[[], float]) -> Iterator[None]:
    """Have all of this process tell the time by `now` inside the block. Not to be nested."""
    global _now  # noqa: PLW0603 - the one place where a process keeps its time
    if _now is not time.monotonic:
        raise RuntimeError("this process tells the time by another clock already")
    _now = now
    try:
        yield
    finally:
        _now = time.monotonic
