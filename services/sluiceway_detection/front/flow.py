"""The crops of one request through the pool: taken or refused as a whole, answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Cancelled, DeadlineExceeded, InvalidOption, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.pool import Answers, Outcome, Priority, Submission, Work

__all__ = ["PoolLike", "answers_of"]

# These concern the server or the request, not the crop that happened to meet them: they end the whole call.
_OF_THE_CALL = (Unavailable, DeadlineExceeded, QueueFull, Cancelled)


class PoolLike(Protocol):
    """What is used of `sluiceway_runtime.pool.Pool`."""

    def submit_many(
        self,
        work: Sequence[Work],
        *,
        request_id: str,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        answered: Callable[[Answers], None],
    ) -> Submission:
        """See `Pool.submit_many`."""
        ...


async def answers_of(
    pool: PoolLike, work: Sequence[Work], *, request_id: str, deadline: Deadline, priority: Priority, max_bytes: int
) -> list[Outcome | SluicewayError]:
    """Compute all items of one request.

    Args:
        pool: computes.
        work: the items.
        request_id: for fairness and logs.
        deadline: of the request.
        priority: of the request.
        max_bytes: most bytes in the buffers of all answers together; what is above it is not waited for.

    Returns:
        For each its answer, or why there is none.

    Raises:
        QueueFull, Unavailable, DeadlineExceeded: the call as a whole failed; one item that finds no room is enough.
        InvalidOption: the answers are too large together.

    Cancellation:
        What has no answer is withdrawn, as with any exception.
    """
    gathered = _Gathered(len(work), max_bytes)
    submission = pool.submit_many(
        work, request_id=request_id, deadline=deadline, priority=priority, answered=gathered.answered
    )
    try:
        # An error that ends the call is held by nobody: with its traceback it would keep the pixels of the request.
        refused, submission.refused = submission.refused, []
        gathered.refused(refused)
        del refused
        return await gathered.complete()
    finally:
        submission.cancel()


class _Gathered:
    """Answers to the items of one request, as they come."""

    def __init__(self, count: int, max_bytes: int) -> None:
        self._results: list[Outcome | SluicewayError | None] = [None] * count
        self._left = count
        self._room_bytes = self._max_bytes = max_bytes
        self._fault: SluicewayError | None = None
        self._done = asyncio.Event()

    def answered(self, answers: Answers) -> None:
        """Take note of some; called by the pool."""
        for position, result in zip(answers.positions, answers.results, strict=True):
            if isinstance(result, SluicewayError):
                self._note(position, result)
                continue
            self._room_bytes -= result.size_bytes
            self._note(position, Outcome(result, answers.queue_ms, answers.compute_ms, answers.worker))
        if self._room_bytes < 0:
            self._fail(
                InvalidOption(
                    f"the crops would take more than {self._max_bytes} bytes, and no more fit into an answer",
                    metadata={"limit": "max_crop_bytes", "max": str(self._max_bytes)},
                )
            )

    def refused(self, refused: Iterable[tuple[int, SluicewayError]]) -> None:
        """Take note of those that the pool did not take."""
        for position, error in refused:
            self._note(position, error)

    async def complete(self) -> list[Outcome | SluicewayError]:
        """Wait for all, or for what ends the call."""
        if self._left:
            await self._done.wait()
        fault, self._fault = self._fault, None
        if fault is not None:
            try:
                raise fault
            finally:
                del fault
        return [result for result in self._results if result is not None]

    def _note(self, position: int, result: Outcome | SluicewayError) -> None:
        self._left -= 1
        if isinstance(result, _OF_THE_CALL):
            self._fail(result)
            return
        self._results[position] = result
        if not self._left:
            self._done.set()

    def _fail(self, fault: SluicewayError) -> None:
        self._fault = self._fault or fault
        self._done.set()
