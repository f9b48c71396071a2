"""The loop of a worker: batches come in, are computed, perhaps overlapping, and are answered in order.

The process and its in-process twin share this.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from sluiceway_runtime.errors import SluicewayError, describe
from sluiceway_runtime.pool.handler import Finish, Handler, OverlappingHandler, checked
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.transport.messages import Lost, Raised, Recall, Result, Run
from sluiceway_runtime.resident import own_bytes

__all__ = ["Inbox", "Waiting", "serve"]

logger = logging.getLogger(__name__)

# What the front sent, or what became of it on the way; None wakes the loop without saying anything.
Task = Run | Recall | Raised | Lost | None
Answer = Result | Raised | Lost
Begin = Callable[[Sequence[Payload]], Finish]


class Inbox(Protocol):
    """What is used of `queue.SimpleQueue`."""

    def get(self) -> Task:
        """Wait for the next."""
        ...

    def empty(self) -> bool:
        """Whether `get` would wait."""
        ...


def serve(
    handler: Handler,
    inbox: Inbox,
    answer: Callable[[Answer], None],
    leaving: Callable[[], bool],
    *,
    overlap: int = 1,
) -> None:
    """Compute what comes until it is time to leave. What has been begun by then is finished and answered.

    With `overlap` above 1 and a handler that can `launch`, the next batch is begun before the one before it is waited
    for, as soon as it is there: a batch never waits for one that has not come. All that has come is heard before the
    next one is begun, as it may say that nobody waits for that any more.

    Args:
        handler: computes.
        inbox: of this worker.
        answer: is told every result, in the order of the batches.
        leaving: whether to begin nothing more; asked after each `get`.
        overlap: most batches begun at a time.
    """
    begin: Begin = lambda batch: lambda: handler.run(batch)  # noqa: E731 - one expression, used once
    if overlap > 1 and hasattr(handler, "launch"):
        begin = cast("OverlappingHandler", handler).launch
    else:
        overlap = 1
    waiting: dict[int, Waiting] = {}
    begun: deque[_Begun] = deque()
    while not leaving():
        if not (waiting or begun) or not inbox.empty():
            task = inbox.get()
            if isinstance(task, Run):
                waiting[task.batch_id] = Waiting(task)
            elif isinstance(task, Recall):
                if (batch := waiting.get(task.batch_id)) is not None and not batch.drop(task.positions):
                    del waiting[task.batch_id]
                    answer(batch.result((), 0.0, own_bytes()))
            elif task is not None:
                answer(task)
        elif waiting and len(begun) < overlap:
            begun.append(_Begun(begin, waiting.pop(next(iter(waiting)))))
        else:
            answer(begun.popleft().finish())
    for started in begun:
        answer(started.finish())


class Waiting:
    """A batch that has not been begun, and what of it is still wanted."""

    __slots__ = ("_dropped", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._dropped: frozenset[int] = frozenset()

    @property
    def id(self) -> int:
        """Of the batch."""
        return self._run.batch_id

    @property
    def batch(self) -> Sequence[Payload]:
        """What is to be computed of it."""
        if not self._dropped:
            return self._run.batch
        return [payload for place, payload in enumerate(self._run.batch) if place not in self._dropped]

    def drop(self, positions: Iterable[int]) -> bool:
        """Do not compute these; returns whether anything is left."""
        self._dropped |= frozenset(positions)
        return len(self._dropped) < len(self._run.batch)

    def result(self, results: Sequence[Payload | SluicewayError], compute_ms: float, memory_bytes: int) -> Result:
        """What there is to tell, in the places of the batch as it came."""
        placed: Iterable[Payload | SluicewayError | None] = results
        if self._dropped:
            left = iter(results)
            placed = [None if place in self._dropped else next(left) for place in range(len(self._run.batch))]
        return Result(self.id, tuple(placed), compute_ms, memory_bytes)


class _Begun:
    """A batch that was started.

    `SystemExit` from a handler is a fault of the batch like any other: only the pool ends workers.
    """

    def __init__(self, begin: Begin, waiting: Waiting) -> None:
        self._waiting = waiting
        self._batch = waiting.batch
        self._begun_s = time.perf_counter()
        self._wait: Finish | None = None
        self._fault = ""
        try:
            self._wait = begin(self._batch)
        except (Exception, SystemExit) as error:
            self._note(error)

    def finish(self) -> Result | Raised:
        """Wait for its end. The time told runs from its start: with overlap it holds the end of the batch before."""
        results: tuple[Payload | SluicewayError, ...] = ()
        if self._wait is not None:
            try:
                results = checked(self._wait(), len(self._batch))
            except (Exception, SystemExit) as error:
                self._note(error)
        if self._fault:
            return Raised(self._waiting.id, self._fault)
        return self._waiting.result(results, (time.perf_counter() - self._begun_s) * 1000, own_bytes())

    def _note(self, error: BaseException) -> None:
        logger.error("the handler raised on batch %d, of %d items", self._waiting.id, len(self._batch), exc_info=error)
        self._fault = describe(error)
