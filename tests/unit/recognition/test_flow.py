"""A request's crops on their way through a pool that the tests hold in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from sluiceway_recognition.flow import CropResult, QueuedCrop, recognise
from sluiceway_recognition.types import TextAnswer
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    InvalidImage,
    ModelFailed,
    Quarantined,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool import Outcome, Payload, Priority


class HeldPool:
    """Answers when told to; refuses above `places`."""

    def __init__(self, places: int = 1000) -> None:
        self.places = places
        self.held: dict[int, asyncio.Future[Outcome]] = {}
        self.refusals: dict[int, SluicewayError] = {}
        self.submitted: list[int] = []

    def submit(self, payload: Payload, **options: object) -> asyncio.Future[Outcome]:
        if payload.meta in self.refusals:
            raise self.refusals[payload.meta]
        if sum(not future.done() for future in self.held.values()) >= self.places:
            raise QueueFull("full", retry_after_s=0.001)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.held[payload.meta] = future
        self.submitted.append(payload.meta)
        return future

    def answer(self, *crop_ids: int) -> None:
        for crop_id in crop_ids:
            self.held[crop_id].set_result(Outcome(Payload(text(crop_id)), 1.0, 2.0, 0))

    def fail(self, crop_id: int, error: Exception) -> None:
        self.held[crop_id].set_exception(error)


def text(crop_id: int) -> TextAnswer:
    return TextAnswer(str(crop_id), 1.0, (), ())


def start(
    pool: HeldPool, count: int, window: int = 1000, **given: SluicewayError
) -> AsyncGenerator[list[CropResult], None]:
    crops = [QueuedCrop(index, given.get(f"crop{index}") or Payload(index)) for index in range(count)]
    return recognise(pool, crops, request_id="r", deadline=Deadline.after(60), priority=Priority.NORMAL, window=window)


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def ids(results: list[CropResult]) -> list[int]:
    return [result.crop_id for result in results]


async def test_an_empty_request_ends_at_once() -> None:
    assert [ready async for ready in start(HeldPool(), 0)] == []


async def test_each_crop_comes_when_it_is_done_and_together_only_if_ready_together() -> None:
    pool = HeldPool()
    results = start(pool, 4)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(2)
    assert ids(await first) == [2]
    second = asyncio.ensure_future(anext(results))
    await turn()
    assert not second.done()
    pool.answer(0, 3)
    assert ids(await second) == [0, 3]
    pool.answer(1)
    assert ids(await anext(results)) == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_a_crop_that_fails_leaves_its_neighbours_alone() -> None:
    pool = HeldPool()
    pool.refusals[3] = Quarantined("this crop ends workers")
    results = start(pool, 4, crop1=InvalidImage("no pixels"))
    told = {result.crop_id: result.result for result in await anext(results)}
    assert isinstance(told[1], InvalidImage)
    assert isinstance(told[3], Quarantined)
    pool.fail(0, ModelFailed("no"))
    pool.answer(2)
    rest = {result.crop_id: result.result for result in await anext(results)}
    assert isinstance(rest[0], ModelFailed)
    assert rest[2] == text(2)


@pytest.mark.parametrize("error", [Unavailable("gone"), DeadlineExceeded("late"), RuntimeError("a bug")])
async def test_a_failure_of_the_server_ends_the_call_and_withdraws_the_rest(error: Exception) -> None:
    pool = HeldPool()
    results = start(pool, 3)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.fail(1, error)
    with pytest.raises(type(error)):
        await first
    assert pool.held[0].cancelled()
    assert pool.held[2].cancelled()


async def test_a_full_queue_refuses_a_request_of_which_nothing_was_accepted() -> None:
    with pytest.raises(QueueFull):
        await anext(start(HeldPool(places=0), 3))


async def test_a_request_larger_than_the_queue_is_fed_in_as_there_is_room() -> None:
    pool = HeldPool(places=2)
    results = start(pool, 5)
    first = asyncio.ensure_future(anext(results))
    await turn()
    assert pool.submitted == [0, 1]
    pool.answer(0)
    assert ids(await first) == [0]
    second = asyncio.ensure_future(anext(results))
    await turn()
    assert pool.submitted == [0, 1, 2]
    pool.answer(1, 2)
    await second
    third = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(3, 4)
    assert ids(await third) == [3, 4]


async def test_an_admitted_request_waits_while_others_fill_the_queue() -> None:
    pool = HeldPool(places=1)
    results = start(pool, 2)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(0)
    await first
    pool.places = 0
    second = asyncio.ensure_future(anext(results))
    await turn()
    assert not second.done()
    pool.places = 1
    async with asyncio.timeout(5):
        while 1 not in pool.held:
            await asyncio.sleep(0.001)
    pool.answer(1)
    assert ids(await second) == [1]


async def test_a_request_never_takes_more_than_its_window() -> None:
    pool = HeldPool()
    results = start(pool, 5, window=2)
    first = asyncio.ensure_future(anext(results))
    await turn()
    assert pool.submitted == [0, 1]
    await _stop(first, results)


async def test_leaving_withdraws_every_crop() -> None:
    pool = HeldPool(places=2)
    results = start(pool, 5)
    first = asyncio.ensure_future(anext(results))
    await turn()
    await _stop(first, results)
    assert all(future.cancelled() for future in pool.held.values())
    assert pool.submitted == [0, 1]


async def _stop(waiting: asyncio.Future[object], results: AsyncGenerator[list[CropResult], None]) -> None:
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await results.aclose()
