"""Waiting for a state that no event tells of, and a sentence about it if it does not come."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["until", "wait_until"]

T = TypeVar("T")
# Not what a state takes, but what it may take on a machine that has fifteen other things to do.
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.01


async def until(
    condition: Callable[[], Awaitable[T] | T],
    *,
    what: str = "",
    state: Callable[[], object] | None = None,
    within_s: float = PATIENCE_S,
    every_s: float = LOOK_EVERY_S,
) -> T:
    """Look again and again, while the event loop goes on, until a condition holds.

    Args:
        condition: true or, if it can be awaited, ends with something true once the state is there.
        what: the state in words; without them its condition is quoted.
        state: how things stand, for the sentence.
        within_s: how long it may take.
        every_s: the pause between two looks.

    Returns:
        What the condition gave.

    Raises:
        AssertionError: the state has not come in time.
        TimeoutError: one look alone took longer than that.
    """
    end_s = time.monotonic() + within_s
    while not (found := await _seen(condition, within_s)):
        # After the look: a machine that stood still meanwhile has had the time to get there.
        if time.monotonic() > end_s:
            raise AssertionError(_sentence(condition, found, what, state, within_s))
        await asyncio.sleep(every_s)
    return found


def wait_until(
    condition: Callable[[], T],
    *,
    what: str = "",
    state: Callable[[], object] | None = None,
    within_s: float = PATIENCE_S,
    every_s: float = LOOK_EVERY_S,
) -> T:
    """As `until`, where no event loop has to go on: for what other processes and threads do."""
    end_s = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(_sentence(condition, found, what, state, within_s))
        time.sleep(every_s)
    return found


async def _seen(condition: Callable[[], Awaitable[T] | T], within_s: float) -> T:
    found = condition()
    return await asyncio.wait_for(found, within_s) if inspect.isawaitable(found) else found


def _sentence(
    condition: Callable[[], object], found: object, what: str, state: Callable[[], object] | None, within_s: float
) -> str:
    sentence = f"not within {within_s:g} s: {what or _quoted(condition)}"
    if state is not None:
        return f"{sentence}, but {state()}"
    # What a comparison gives says no more than that it did not hold.
    return sentence if isinstance(found, bool) or found is None else f"{sentence}, but {found!r}"


def _quoted(condition: Callable[[], object]) -> str:
    """The lines of a lambda, the name of any other."""
    name = getattr(condition, "__qualname__", repr(condition))
    if not name.endswith("<lambda>"):
        return str(name)
    try:
        return " ".join(inspect.getsource(condition).split())
    except OSError:
        return str(name)
