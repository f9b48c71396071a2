"""Pages of a document through a pool that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from sluiceway_detection.front.paging import MAX_CRASHES, PageAnswer, PageRange, answers_of_pages
from sluiceway_detection.job import DetectionAnswer
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.documents.pages import PAGE_COUNT
from sluiceway_runtime.errors import (
    InvalidImage,
    InvalidOption,
    ModelFailed,
    Quarantined,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool import Outcome, Payload, Priority

ALL = PageRange()


class FakePool:
    """Answers for each page what it is given; 5 pages unless that says otherwise.

    Attributes:
        begun, ended: pages in the order in which they came and were answered or withdrawn.
        room: so many at a time.
    """

    def __init__(self, answers: dict[int, SluicewayError] | None = None, *, pages: int = 5, room: int = 100) -> None:
        self.answers = answers or {}
        self.pages = pages
        self.room = room
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0

    def submit(self, payload: Payload, **_: Any) -> asyncio.Future[Outcome]:
        number: int = payload.meta
        if len(self.begun) - len(self.ended) >= self.room:
            raise QueueFull("full")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self.ended.append(number))
        self.begun.append(number)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        asyncio.get_running_loop().call_soon(self._answer, number, future)
        return future

    def _answer(self, number: int, future: asyncio.Future[Outcome]) -> None:
        if future.done():
            return
        if number in self.answers:
            future.set_exception(self.answers[number])
        elif number >= self.pages:
            future.set_exception(InvalidOption("no such page", metadata={PAGE_COUNT: str(self.pages)}))
        else:
            meta = DetectionAnswer(1, 1, b"", b"", b"", (), (), 0.0, page_count=self.pages)
            future.set_result(Outcome(Payload(meta), 0, 0, 0))


def ask(pool: FakePool, pages: PageRange, at_once: int = 3) -> Any:
    return answers_of_pages(
        pool,
        Payload,
        pages,
        at_once=at_once,
        cost=1,
        request_id="r",
        deadline=Deadline.after(20),
        priority=Priority.NORMAL,
    )


async def answers(pool: FakePool, pages: PageRange = ALL, at_once: int = 3) -> list[PageAnswer]:
    return [answer async for answer in ask(pool, pages, at_once)]


def page_fault(text: str = "damaged", pages: int = 5) -> InvalidImage:
    return InvalidImage(text, metadata={PAGE_COUNT: str(pages)})


async def test_all_pages_and_none_past_the_end() -> None:
    pool = FakePool()
    told = await answers(pool)
    assert sorted(answer.number for answer in told) == [0, 1, 2, 3, 4]
    assert {answer.page_count for answer in told} == {5}
    assert pool.most == 3
    assert max(pool.begun) <= 6


@pytest.mark.parametrize(
    ("pages", "numbers"),
    [
        (PageRange(2), [2, 3, 4]),
        (PageRange(1, 2), [1, 2]),
        (PageRange(0, 4, {0, 2}), [1, 3]),
        (PageRange(3, 10), [3, 4]),
        (PageRange(9), []),
        (PageRange(9, 2), []),
    ],
)  # fmt: skip
async def test_ranges(pages: PageRange, numbers: list[int]) -> None:
    assert sorted(answer.number for answer in await answers(FakePool(), pages)) == numbers


async def test_no_page_of_a_range_is_begun_twice_and_none_outside_it() -> None:
    pool = FakePool(pages=50)
    await answers(pool, PageRange(10, 20, {12, 13}))
    assert pool.begun == [10, 11, *range(14, 30)]


async def test_a_damaged_page_fails_alone_though_it_is_the_first() -> None:
    told = {answer.number: answer.outcome for answer in await answers(FakePool({0: page_fault(), 3: page_fault()}))}
    assert [number for number, outcome in sorted(told.items()) if isinstance(outcome, InvalidImage)] == [0, 3]
    assert len(told) == 5


@pytest.mark.parametrize("error", [ModelFailed("raised"), Quarantined("died")])
async def test_a_page_that_fails_otherwise_fails_alone(error: SluicewayError) -> None:
    told = {answer.number: answer.outcome for answer in await answers(FakePool({1: error}))}
    assert told[1] is error
    assert len(told) == 5


async def test_workers_are_not_spent_page_by_page() -> None:
    pool = FakePool(dict.fromkeys(range(100), Quarantined("died")), pages=100)
    with pytest.raises(Quarantined):
        await answers(pool, at_once=1)
    assert len(pool.begun) == MAX_CRASHES


@pytest.mark.parametrize("error", [InvalidImage("encrypted"), Unavailable("stopping")])
async def test_what_concerns_the_document_or_the_server_ends_the_call(error: SluicewayError) -> None:
    pool = FakePool(dict.fromkeys(range(100), error))
    with pytest.raises(type(error)):
        await answers(pool)
    await asyncio.sleep(0)
    assert sorted(pool.begun) == sorted(pool.ended)


async def test_a_full_queue_ends_the_call_at_its_beginning_and_is_waited_for_later() -> None:
    with pytest.raises(QueueFull):
        await answers(FakePool(room=0))
    pool = FakePool(room=1)
    assert sorted(answer.number for answer in await answers(pool)) == [0, 1, 2, 3, 4]
    assert pool.most == 1


async def test_nothing_is_begun_while_nobody_takes_answers() -> None:
    pool = FakePool(pages=1000)
    told = ask(pool, PageRange(), 4)
    async with aclosing(told):
        await anext(told)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(pool.begun) <= 4 + 4
    await asyncio.sleep(0)
    # What nobody waits for any more is withdrawn.
    assert sorted(pool.begun) == sorted(pool.ended)


def test_ranges_that_never_end_are_lazy() -> None:
    numbers = PageRange(5, None, {6}).numbers()
    take: Callable[[], int] = lambda: next(numbers)  # noqa: E731 - one expression
    assert [take(), take()] == [5, 7]
