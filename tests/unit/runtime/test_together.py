"""Parts of a source that run at once: what one of them raises says nothing about who is cancelled."""

import asyncio

import pytest
from sluiceway_runtime.together import nursery, together


async def fails() -> None:
    await asyncio.sleep(0)
    raise ValueError("a part failed")


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


async def test_after_a_part_has_failed_timeouts_work_as_before() -> None:
    """A source that begins again ends by its deadline, and not as if somebody had cancelled its job."""
    with pytest.raises(ValueError, match="a part failed"):
        await together([fails(), waits()])
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await waits()


async def test_a_cancellation_from_outside_is_kept() -> None:
    async def work() -> None:
        async with nursery() as group:
            group.create_task(waits())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
