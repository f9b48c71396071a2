"""Running the parts of one source at once, with one error to tell for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["nursery", "together"]


async def together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them at once and return when all have ended; a single one costs no task of its own.

    Raises:
        Exception: what the first of them raised; the others are cancelled.
    """
    if len(works) == 1:
        await works[0]
    elif works:
        async with nursery() as group:
            for work in works:
                group.create_task(work)


@asynccontextmanager
async def nursery() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error itself, as one of the steps would have."""
    first: BaseException | None = None
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as faults:
        # In Python 3.11 a group whose part fails while it waits for the others leaves its own cancelling of this task
        # behind. Every later timeout of the task would then end it as if somebody had cancelled it.
        if task.cancelling() > cancelled:
            task.uncancel()
        first = faults
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
    if first is not None:
        try:
            # Not within the handler: the group would be its context, and it is in the group. Such a circle keeps all
            # that the frames of its traceback know, the image among them, until somebody looks for garbage.
            raise first
        finally:
            first = None
