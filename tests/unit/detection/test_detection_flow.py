"""The crops of a request on their way through a pool that the tests hold in hand."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
from sluiceway_detection.front.flow import answers_of
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    InvalidOption,
    ModelFailed,
    Quarantined,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool import Answers, Outcome, Payload, Priority, Submission, Work


class HeldPool:
    """Answers when told to; refuses what it is told to. One request at a time."""

    def __init__(self, **refusals: SluicewayError) -> None:
        self.refusals = refusals
        self.tell: Callable[[Answers], None]
        self.withdrawn = 0

    def submit_many(
        self, work: Sequence[Work], *, answered: Callable[[Answers], None], **options: object
    ) -> Submission:
        submission = Submission(work, 0, answered, self._cancel)
        self.tell = answered
        submission.refused = [(int(name[4:]), error) for name, error in self.refusals.items()]
        return submission

    def _cancel(self, submission: Submission) -> None:
        self.withdrawn += 1

    def answer(self, *positions: int, size_bytes: int = 1) -> None:
        results = [Payload(position, (bytes(size_bytes),)) for position in positions]
        self.tell(Answers(list(positions), list(results), 1.0, 2.0, 0))

    def fail(self, position: int, error: SluicewayError) -> None:
        self.tell(Answers([position], [error], 0.0, 0.0, -1))


def start(
    pool: HeldPool, count: int, work: Sequence[Work] | None = None
) -> asyncio.Task[list[Outcome | SluicewayError]]:
    return asyncio.ensure_future(
        answers_of(
            pool,
            work or [Work(Payload(number)) for number in range(count)],
            request_id="r",
            deadline=Deadline.after(60),
            priority=Priority.NORMAL,
            max_bytes=100,
        )
    )


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_answers_come_in_the_order_of_the_request() -> None:
    pool = HeldPool()
    call = start(pool, 3)
    await turn()
    pool.answer(2)
    pool.answer(1)
    await turn()
    assert not call.done()
    pool.answer(0)
    found = await call
    assert [outcome.payload.meta for outcome in found if isinstance(outcome, Outcome)] == [0, 1, 2]
    assert isinstance(found[0], Outcome)
    assert (found[0].queue_ms, found[0].compute_ms) == (1, 2)


async def test_no_crops_need_no_answer() -> None:
    assert await start(HeldPool(), 0) == []


async def test_a_crop_that_fails_leaves_the_others() -> None:
    pool = HeldPool(item1=Quarantined("killer"))
    call = start(pool, 3)
    await turn()
    pool.fail(2, ModelFailed("no"))
    pool.answer(0)
    found = await call
    assert [type(item) for item in found] == [Outcome, Quarantined, ModelFailed]


@pytest.mark.parametrize("error", [QueueFull("full", retry_after_s=1.0), Unavailable("gone"), DeadlineExceeded("late")])
@pytest.mark.parametrize("refused", [True, False])
async def test_what_concerns_the_call_ends_it_and_withdraws_the_rest(error: SluicewayError, refused: bool) -> None:
    pool = HeldPool(item1=error) if refused else HeldPool()
    call = start(pool, 3)
    await turn()
    if not refused:
        pool.answer(0)
        pool.fail(1, error)
    with pytest.raises(type(error)) as caught:
        await call
    assert caught.value is error
    assert pool.withdrawn == 1


async def test_more_bytes_than_an_answer_holds_are_not_waited_for() -> None:
    pool = HeldPool()
    call = start(pool, 3)
    await turn()
    pool.answer(0, size_bytes=60)
    await turn()
    assert not call.done()
    pool.answer(1, size_bytes=41)
    with pytest.raises(InvalidOption, match="100 bytes") as caught:
        await call
    assert caught.value.metadata["limit"] == "max_crop_bytes"
    assert pool.withdrawn == 1


async def test_a_caller_that_leaves_withdraws_its_crops() -> None:
    pool = HeldPool()
    call = start(pool, 3)
    await turn()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pool.withdrawn == 1


class Pixels(bytearray):
    """A buffer that can be watched."""


@pytest.mark.parametrize("refused", [True, False])
async def test_an_error_does_not_keep_the_pixels(refused: bool) -> None:
    # A traceback that its own error is seen from is freed by the collector alone, many requests later.
    pixels = Pixels(10)
    watch = weakref.ref(pixels)
    pool = HeldPool(item0=QueueFull("full")) if refused else HeldPool()
    call = start(pool, 1, [Work(Payload(0, (pixels,)))])
    del pixels
    gc.disable()
    try:
        await turn()
        if not refused:
            pool.fail(0, DeadlineExceeded("late"))
        await turn()
        assert isinstance(call.exception(), SluicewayError)
        pool.refusals.clear()
        del call, pool
        await turn()
        assert watch() is None
    finally:
        gc.enable()
