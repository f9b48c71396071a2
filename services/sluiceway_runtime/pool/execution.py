"""The loop of a worker: batches come in, are computed, perhaps overlapping, and are answered in order.

The process and its in-process twin share this.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from sluiceway_runtime.errors import SluicewayError, describe
from sluiceway_runtime.pool.handler import Finish, Handler, OverlappingHandler, checked
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.transport.messages import Raised, Result, Run, Undelivered

__all__ = ["Inbox", "resident_bytes", "serve"]

logger = logging.getLogger(__name__)

PAGE_BYTES = os.sysconf("SC_PAGESIZE")
STATM = "/proc/self/statm"

# What the front sent, or what became of it on the way; None wakes the loop without saying anything.
Task = Run | Raised | Undelivered | None
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
    answer: Callable[[Result | Raised | Undelivered], None],
    leaving: Callable[[], bool],
    *,
    overlap: int = 1,
) -> None:
    """Compute what comes until it is time to leave. What has been begun by then is finished and answered.

    With `overlap` above 1 and a handler that can `launch`, the next batch is begun before the one before it is waited
    for, as soon as it is there: a batch never waits for one that has not come.

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
    begun: deque[_Begun] = deque()
    while not leaving():
        if len(begun) == overlap or (begun and inbox.empty()):
            answer(begun.popleft().finish())
            continue
        task = inbox.get()
        if isinstance(task, Run):
            if leaving():
                break
            begun.append(_Begun(begin, task))
        elif task is not None:
            answer(task)
    for batch in begun:
        answer(batch.finish())


class _Begun:
    """A batch that was started.

    `SystemExit` from a handler is a fault of the batch like any other: only the pool ends workers.
    """

    def __init__(self, begin: Begin, run: Run) -> None:
        self._run = run
        self._begun_s = time.perf_counter()
        self._wait: Finish | None = None
        self._fault = ""
        try:
            self._wait = begin(run.batch)
        except (Exception, SystemExit) as error:
            self._note(error)

    def finish(self) -> Result | Raised:
        """Wait for its end. The time told runs from its start: with overlap it holds the end of the batch before."""
        results: tuple[Payload | SluicewayError, ...] = ()
        if self._wait is not None:
            try:
                results = checked(self._wait(), len(self._run.batch))
            except (Exception, SystemExit) as error:
                self._note(error)
        if self._fault:
            return Raised(self._run.batch_id, self._fault)
        return Result(self._run.batch_id, results, (time.perf_counter() - self._begun_s) * 1000, resident_bytes())

    def _note(self, error: BaseException) -> None:
        logger.error("the handler raised on a batch of %d", len(self._run.batch), exc_info=error)
        self._fault = describe(error)


def resident_bytes() -> int:
    """Resident memory of this process; 0 if there is no descriptor left to ask with.

    By bare system calls, as an answer waits for it, and is worth more than this number.
    """
    try:
        descriptor = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 256).split()[1]) * PAGE_BYTES
    finally:
        os.close(descriptor)
