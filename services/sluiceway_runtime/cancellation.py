"""Whose cancellation it is that a task meets."""

from __future__ import annotations

import asyncio

__all__ = ["was_asked_to_end"]


def was_asked_to_end() -> bool:
    """Whether the current task itself was cancelled, and has not done with it.

    An `asyncio.CancelledError` in a task of which nobody asked that comes out of what it waited for: a connection that
    was closed below a call, for instance, or a future that others wait for as well. Passed on, it would end the work as
    if its client had given it up.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
