"""One request's crops through the pool: fed in as there is room, answered as they are done, withdrawn when unwanted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple, Protocol

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Cancelled, DeadlineExceeded, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.pool import Answers, Payload, Priority, Submission, Work

from sluiceway_recognition.types import Answer

__all__ = ["CropResult", "PoolLike", "recognise"]

# These concern the server or the request, not the crop that happened to meet them: they end the whole call.
_OF_THE_CALL = (Unavailable, DeadlineExceeded, QueueFull, Cancelled)
# After an answer, what follows is collected for so long, unless it is the last. The first crop of a request is not held
# up, and neither is its end; but each response costs every process that it passes half a millisecond, which on few
# cores is taken from the workers.
HOLD_S = 0.004
# Where many requests are under way, batches come one after the other, and each has crops of several requests. Were each
# answered at once, a front with 48 requests would spend a quarter of its time on responses: the more there are, the
# longer it collects.
HOLD_PER_CALL_S = 0.001
# Where a refusal does not say when to come back.
_RETRY_S = 0.02


class CropResult(NamedTuple):
    """A crop that is done. Times are 0 for one that never reached a worker."""

    crop_id: int
    result: Answer | SluicewayError
    queue_ms: float = 0.0
    compute_ms: float = 0.0


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


async def recognise(
    pool: PoolLike,
    crops: Sequence[tuple[int, Work | SluicewayError]],
    *,
    request_id: str,
    deadline: Deadline,
    priority: Priority,
    window: int,
    calls: Callable[[], int] = lambda: 1,
    whole: bool = False,
) -> AsyncGenerator[list[CropResult], None]:
    """Compute crops; yields those that are done: the first at once, later ones together with what follows within 4 ms.

    Where more than four requests are under way, it is a millisecond for each of them.

    A request is refused as a whole or taken as a whole: QUEUE_FULL ends it only while none of its crops was accepted.
    Later crops wait here until there is room, so a page with more words than the queue has places is read all the same.

    Args:
        pool: computes.
        crops: of one request, by id: what to compute, or the error of one that is known not to be computable.
        request_id: for fairness and logs.
        deadline: of the request.
        priority: of the request.
        window: most crops of this request in the pool at once; leaves room for other requests.
        calls: how many requests are under way.
        whole: yield once, when all are done.

    Raises:
        QueueFull, Unavailable, DeadlineExceeded: the call as a whole failed; what was yielded stays valid.

    Cancellation:
        Closing the generator, or any exception, withdraws every crop that was not answered. Close it explicitly
        (`contextlib.aclosing`).
    """
    loop = asyncio.get_running_loop()
    next_s = math.inf if whole else 0.0  # when the next ones may be sent
    ready = [CropResult(crop_id, work) for crop_id, work in crops if not isinstance(work, Work)]
    # The widest first: those of about the same width then come to a worker together, which computes narrow ones eight
    # at a time, and what is left for the end is short.
    waiting = sorted(
        [(crop_id, work) for crop_id, work in crops if isinstance(work, Work)], key=lambda crop: -crop[1].cost
    )
    flow = _Flow(pool, request_id, deadline, priority)
    try:
        while waiting or flow.running or ready:
            retry_s: float | None = None
            if waiting and flow.running < window:
                room = window - flow.running
                refused = flow.submit(waiting[:room])
                left = []
                for crop, error in refused:
                    if isinstance(error, QueueFull) and flow.admitted:
                        left.append(crop)
                        retry_s = error.retry_after_s or _RETRY_S
                    elif isinstance(error, _OF_THE_CALL):
                        raise error
                    else:
                        # Known to kill workers, perhaps: this crop fails, its neighbours do not.
                        ready.append(CropResult(crop[0], error))
                waiting[:room] = left
            if ready and (loop.time() >= next_s or not (waiting or flow.running)):
                yield ready
                ready = []
                next_s = loop.time() + max(HOLD_S, calls() * HOLD_PER_CALL_S)
            if flow.running:
                until_s = next_s if loop.time() < next_s else None
                ready += await flow.wait(until_s, for_all=until_s is not None and not waiting)
            elif waiting:
                await asyncio.sleep(retry_s or 0.0)
    finally:
        flow.close()


class _Flow:
    """What one request has in the pool."""

    def __init__(self, pool: PoolLike, request_id: str, deadline: Deadline, priority: Priority) -> None:
        self.running = 0  # crops whose answers were not fetched with `wait`
        self.admitted = False
        self._unanswered = 0
        self._pool = pool
        self._request_id = request_id
        self._deadline = deadline
        self._priority = priority
        self._submissions: list[Submission] = []
        self._told: list[tuple[list[tuple[int, Work]], Answers]] = []
        self._for_all = False
        self._wake: asyncio.Future[None] | None = None

    def submit(self, crops: list[tuple[int, Work]]) -> list[tuple[tuple[int, Work], SluicewayError]]:
        """Give crops to the pool; returns those that it did not take."""

        def answered(answers: Answers) -> None:
            self._told.append((crops, answers))
            self._unanswered -= len(answers.positions)
            if not (self._for_all and self._unanswered):
                self._stop_waiting()

        submission = self._pool.submit_many(
            [work for _, work in crops],
            request_id=self._request_id,
            deadline=self._deadline,
            priority=self._priority,
            answered=answered,
        )
        taken = len(crops) - len(submission.refused)
        self.running += taken
        self._unanswered += taken
        if taken:
            self.admitted = True
            self._submissions.append(submission)
        return [(crops[position], error) for position, error in submission.refused]

    async def wait(self, until_s: float | None, *, for_all: bool) -> list[CropResult]:
        """Wait for answers; returns those that have come.

        Args:
            until_s: when to return at the latest, on the loop's clock; infinite for no such time.
            for_all: rather for all that are still to come than for some. Waking for each costs more than it is worth.

        Raises:
            SluicewayError: one that concerns the whole call.
        """
        if self._unanswered if for_all else not self._told:
            loop = asyncio.get_running_loop()
            self._for_all = for_all
            self._wake = loop.create_future()
            timer = None if until_s in (None, math.inf) else loop.call_at(until_s, self._stop_waiting)
            try:
                await self._wake
            finally:
                self._wake = None
                if timer is not None:
                    timer.cancel()
        told, self._told = self._told, []
        ready = []
        for crops, (positions, results, queue_ms, compute_ms, _) in told:
            self.running -= len(positions)
            for position, result in zip(positions, results, strict=True):
                if isinstance(result, Payload):
                    ready.append(CropResult(crops[position][0], result.meta, queue_ms, compute_ms))
                elif isinstance(result, _OF_THE_CALL):
                    raise result
                else:
                    ready.append(CropResult(crops[position][0], result))
        return ready

    def _stop_waiting(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def close(self) -> None:
        """Withdraw what has no answer, and let go of the rest.

        A submission knows this flow by its callback: while the flow knows it, too, only the collector would free the
        pixels of the request, many requests later.
        """
        submissions, self._submissions = self._submissions, []
        if self.running:
            for submission in submissions:
                submission.cancel()
