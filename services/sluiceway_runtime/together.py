"""Running the parts of one piece of work at once, with one error to tell for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

__all__ = ["Nursery", "nursery", "together"]

Result = TypeVar("Result")


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


class Nursery:
    """Where the parts are begun."""

    __slots__ = ("_group",)

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group: asyncio.TaskGroup | None = group

    def create_task(self, work: Coroutine[Any, Any, Result], *, name: str | None = None) -> asyncio.Task[Result]:
        """Begin a part."""
        assert self._group is not None, "this nursery is over"
        return self._group.create_task(work, name=name)

    def close(self) -> None:
        """Let go of the group, which knows the task that it was made in."""
        self._group = None


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """A task group that raises the first error itself, as one of the steps would have.

    What is raised knows the frames that it comes through, and a cancelled task what it was cancelled by. So none of
    these frames keeps the task, the group or the error: in such a circle all that the frames further out know, the
    image among them, would be kept until somebody looks for garbage.
    """
    first: BaseException | None = None
    cancelled = _this_task().cancelling()
    parts: Nursery | None = None
    try:
        async with asyncio.TaskGroup() as group:
            parts = Nursery(group)
            del group
            yield parts
    except (BaseExceptionGroup, asyncio.CancelledError) as fault:
        # In Python 3.11 a group whose part fails while it waits for the others leaves its own cancelling of this task
        # behind. Every later timeout of the task would then end it as if somebody had cancelled it.
        if isinstance(fault, BaseExceptionGroup) and _this_task().cancelling() > cancelled:
            _this_task().uncancel()
        # Without the frame in which the group ended, which knows it.
        first = fault.with_traceback(None)
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
    finally:
        if parts is not None:
            parts.close()
    if first is not None:
        try:
            # Not within the handler: the group would be its context, and it is in the group.
            raise first
        finally:
            first = None


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
