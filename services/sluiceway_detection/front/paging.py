"""The pages of one document through the pool: a few at a time, each answered as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Iterator
from itertools import count as count_from
from typing import NamedTuple, Protocol

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.documents.pages import PAGE_COUNT
from sluiceway_runtime.errors import Internal, ModelFailed, Quarantined, QueueFull, SluicewayError
from sluiceway_runtime.pool import Outcome, Payload, Priority

from sluiceway_detection.job import DetectionAnswer

__all__ = ["PageAnswer", "PageRange", "PoolLike", "answers_of_pages"]

# These say nothing of the document, but that this page of it cannot be computed.
_OF_THE_PAGE = (Quarantined, ModelFailed, Internal)
# Workers that one call may cost: each page of a file that PDFium cannot stand would be one.
MAX_CRASHES = 3
# While others keep the queue full, and it does not say for how long.
QUEUE_FULL_PAUSE_S = 0.05


class PageRange(NamedTuple):
    """Which pages are asked for.

    Attributes:
        first: number of the first, from 0.
        most: at most so many; None for all that follow.
        without: those that are left out.
    """

    first: int = 0
    most: int | None = None
    without: Container[int] = ()

    def numbers(self) -> Iterator[int]:
        """Their numbers, which go on past the end of a document."""
        numbers = count_from(self.first) if self.most is None else range(self.first, self.first + self.most)
        return (number for number in numbers if number not in self.without)


class PageAnswer(NamedTuple):
    """What became of a page.

    Attributes:
        number: of the page, from 0.
        page_count: of the document; 0 while unknown.
        outcome: with a `DetectionAnswer`, or why there is none.
    """

    number: int
    page_count: int
    outcome: Outcome | SluicewayError


class PoolLike(Protocol):
    """What is used of `sluiceway_runtime.pool.Pool`."""

    def submit(
        self,
        payload: Payload,
        *,
        request_id: str,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        group: object = None,
        cost: int = 1,
    ) -> asyncio.Future[Outcome]:
        """See `Pool.submit`."""
        ...


async def answers_of_pages(
    pool: PoolLike,
    payload_of: Callable[[int], Payload],
    pages: PageRange,
    *,
    at_once: int,
    cost: int,
    request_id: str,
    deadline: Deadline,
    priority: Priority,
) -> AsyncGenerator[PageAnswer, None]:
    """Compute the pages of a document, and give answers in the order in which they are done.

    How many pages there are comes with their answers, so some past the end may be asked for; those are not answered.

    Args:
        pool: computes.
        payload_of: gives the item for a page by its number.
        pages: which.
        at_once: so many are with the pool at a time; while nobody takes an answer, no more are begun.
        cost: of a page, in pixels.
        request_id: for fairness and logs.
        deadline: of the request.
        priority: of the request.

    Raises:
        InvalidImage, ImageTooLarge: the document cannot be read at all.
        QueueFull, Unavailable, DeadlineExceeded: the call as a whole failed.

    Cancellation:
        Pages without an answer are withdrawn, as with any exception. Close this iterator.
    """
    numbers = pages.numbers()
    begun: dict[asyncio.Future[Outcome], int] = {}
    answered = crashes = page_count = 0
    following = next(numbers, None)
    try:
        while True:
            while following is not None and len(begun) < at_once and not 0 < page_count <= following:
                try:
                    future = pool.submit(
                        payload_of(following),
                        request_id=request_id,
                        deadline=deadline,
                        priority=priority,
                        group="page",
                        cost=cost,
                    )
                except QueueFull as error:
                    if not begun:
                        if not answered:
                            raise
                        await asyncio.sleep(min(error.retry_after_s or QUEUE_FULL_PAUSE_S, deadline.remaining_s()))
                        continue
                    break
                except Quarantined as error:
                    yield PageAnswer(following, page_count, error)
                    crashes += 1
                    if crashes >= MAX_CRASHES:
                        raise
                else:
                    begun[future] = following
                following = next(numbers, None)
            if not begun:
                return
            done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=begun.__getitem__):
                number = begun.pop(future)
                fault = future.exception()
                if fault is None:
                    meta = future.result().payload.meta
                    assert isinstance(meta, DetectionAnswer)
                    page_count = meta.page_count
                    yield PageAnswer(number, page_count, future.result())
                elif not isinstance(fault, SluicewayError):
                    raise fault
                elif PAGE_COUNT in fault.metadata:
                    page_count = int(fault.metadata[PAGE_COUNT])
                    if number >= page_count:
                        continue
                    yield PageAnswer(number, page_count, fault)
                elif isinstance(fault, _OF_THE_PAGE):
                    yield PageAnswer(number, page_count, fault)
                    crashes += isinstance(fault, Quarantined)
                    if crashes >= MAX_CRASHES:
                        raise fault
                else:
                    raise fault
                answered += 1
    finally:
        for future in begun:
            future.cancel()
