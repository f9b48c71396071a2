"""A request's crops on their way through a pool that the tests hold in hand."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from sluiceway_recognition.front import flow
from sluiceway_recognition.front.flow import CropResult, recognise
from sluiceway_recognition.types import TextAnswer
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidImage,
    ModelFailed,
    Quarantined,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool import Answers, Payload, Priority, Submission, Work
from waiting import until


class HeldPool:
    """Answers when told to; refuses above `places`. Payloads are numbers."""

    def __init__(self, places: int = 1000) -> None:
        self.places = places
        self.held: dict[int, tuple[int, Callable[[Answers], None]]] = {}  # what has no answer: its place, whom to tell
        self.refusals: dict[int, SluicewayError] = {}
        self.submitted: list[int] = []
        self.withdrawn: set[int] = set()

    def submit_many(
        self, work: Sequence[Work], *, answered: Callable[[Answers], None], **options: object
    ) -> Submission:
        submission = Submission(work, 0, answered, lambda _: self._cancel(work))
        full = None
        for position, item in enumerate(work):
            number = item.payload.meta
            if full is None and len(self.held) >= self.places:
                full = QueueFull("full", retry_after_s=0.001)
            error = full or self.refusals.get(number)
            if error is None:
                self.held[number] = position, answered
                self.submitted.append(number)
            else:
                submission.refused.append((position, error))
        return submission

    def _cancel(self, work: Sequence[Work]) -> None:
        for item in work:
            if self.held.pop(item.payload.meta, None) is not None:
                self.withdrawn.add(item.payload.meta)

    def answer(self, *crop_ids: int) -> None:
        for crop_id in crop_ids:
            position, answered = self.held.pop(crop_id)
            answered(Answers([position], [Payload(text(crop_id))], 1.0, 2.0, 0))

    def fail(self, crop_id: int, error: SluicewayError) -> None:
        position, answered = self.held.pop(crop_id)
        answered(Answers([position], [error], 0.0, 0.0, -1))


def text(crop_id: int) -> TextAnswer:
    return TextAnswer(str(crop_id), 1.0, (), ())


def start(
    pool: HeldPool, count: int, window: int = 1000, calls: int = 1, *, whole: bool = False, **given: SluicewayError
) -> AsyncGenerator[list[CropResult], None]:
    crops = [(index, given.get(f"crop{index}") or Work(Payload(index))) for index in range(count)]
    return recognise(
        pool,
        crops,
        request_id="r",
        deadline=Deadline.after(60),
        priority=Priority.NORMAL,
        window=window,
        calls=lambda: calls,
        whole=whole,
    )


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def ids(results: list[CropResult]) -> list[int]:
    return [result.crop_id for result in results]


async def test_an_empty_request_ends_at_once() -> None:
    assert [ready async for ready in start(HeldPool(), 0)] == []


async def test_the_widest_crops_go_first() -> None:
    """Whatever the order in which they came; those of one width keep it."""
    pool = HeldPool()
    costs = {1: 64, 2: 320, 3: 64, 4: 720, 5: 320}
    crops = [(number, Work(Payload(number, ()), None, cost)) for number, cost in costs.items()]
    answers = recognise(
        pool, crops, request_id="r", deadline=Deadline.after(20), priority=Priority.NORMAL, window=100, calls=lambda: 1
    )
    first = asyncio.ensure_future(anext(answers))
    await until(lambda: len(pool.submitted) == len(costs))
    assert pool.submitted == [4, 2, 5, 1, 3]
    pool.answer(*pool.submitted)
    await first
    await answers.aclose()


async def test_a_whole_answer_comes_when_the_last_crop_is_done() -> None:
    pool = HeldPool()
    results = start(pool, 4, window=3, whole=True, crop1=InvalidImage("no picture"))
    answer = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(2)
    await turn()
    pool.answer(0)
    await turn()
    assert not answer.done()
    pool.answer(3)
    assert sorted(ids(await answer)) == [0, 1, 2, 3]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


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


async def test_after_the_first_what_follows_is_sent_together_and_the_end_is_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow, "HOLD_S", 60.0)
    pool = HeldPool()
    results = start(pool, 5)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(3)
    assert ids(await first) == [3], "the first waits for nobody"
    rest = asyncio.ensure_future(anext(results))
    for crop in (0, 1, 4):
        await turn()
        pool.answer(crop)
    await turn()
    assert not rest.done()
    pool.answer(2)
    async with asyncio.timeout(30):
        assert ids(await rest) == [0, 1, 4, 2], "nor does the last"


@pytest.mark.parametrize(("least_s", "calls"), [(0.05, 1), (0.0, 50)])
async def test_what_is_held_is_sent_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, least_s: float, calls: int
) -> None:
    """A time that is fixed, or that many requests make up together."""
    monkeypatch.setattr(flow, "HOLD_S", least_s)
    pool = HeldPool()
    results = start(pool, 3, calls=calls)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(0)
    await first
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    second = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(1)
    async with asyncio.timeout(30):
        assert ids(await second) == [1]
    assert loop.time() - began_s >= 0.05, "it was not held"
    third = asyncio.ensure_future(anext(results))
    await turn()
    assert not third.done()
    pool.answer(2)
    assert ids(await third) == [2]


async def test_what_is_held_does_not_keep_waiting_crops_from_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HOLD_S", 60.0)
    pool = HeldPool()
    results = start(pool, 5, window=2)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.answer(0)
    await first
    rest = asyncio.ensure_future(anext(results))
    for crop in (1, 2, 3, 4):
        await turn()
        assert crop in pool.held
        pool.answer(crop)
    async with asyncio.timeout(5):
        assert ids(await rest) == [1, 2, 3, 4]


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


@pytest.mark.parametrize("error", [Unavailable("gone"), DeadlineExceeded("late"), Cancelled("withdrawn")])
async def test_a_failure_of_the_server_ends_the_call_and_withdraws_the_rest(error: SluicewayError) -> None:
    pool = HeldPool()
    results = start(pool, 3)
    first = asyncio.ensure_future(anext(results))
    await turn()
    pool.fail(1, error)
    with pytest.raises(type(error)):
        await first
    assert pool.withdrawn == {0, 2}


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
    await until(lambda: 1 in pool.held)
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
    assert pool.withdrawn == {0, 1}
    assert pool.submitted == [0, 1]


async def _stop(waiting: asyncio.Future[object], results: AsyncGenerator[list[CropResult], None]) -> None:
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await results.aclose()


async def test_the_pixels_of_a_finished_request_are_free_at_once() -> None:
    """Not when the collector next comes round: by then a busy front holds those of a hundred requests."""
    pool = HeldPool()
    pixels = memoryview(b"pixels")
    watched = weakref.ref(pixels)
    crops = [(0, Work(Payload(0, (pixels,))))]
    del pixels
    options = {"request_id": "r", "deadline": Deadline.after(60), "priority": Priority.NORMAL, "window": 10}
    answers = recognise(pool, crops, **options)
    gc.disable()
    try:
        first = asyncio.create_task(anext(answers))
        await turn()
        crops.clear()
        pool.answer(0)
        assert ids(await first) == [0]
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        del answers, first
        assert watched() is None
    finally:
        gc.enable()
