"""A task tells its own cancellation from one that comes out of what it waits for."""

import asyncio
from collections.abc import Awaitable

import pytest
from sluiceway_runtime.cancellation import was_asked_to_end


async def seen_by(work: Awaitable[None]) -> bool:
    with pytest.raises(asyncio.CancelledError):
        await work
    return was_asked_to_end()


async def test_what_it_waits_for_is_cancelled() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(seen_by(future))
    await asyncio.sleep(0)
    future.cancel()
    assert await task is False


async def test_it_is_cancelled_itself() -> None:
    task = asyncio.create_task(seen_by(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    assert await task is True


async def test_a_time_that_is_over_is_done_with() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    assert not was_asked_to_end()
