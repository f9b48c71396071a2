"""For tests of code that uses a pool: a pool whose workers are threads, and a clock that is moved by hand.

`InProcessPool` is `Pool` with other workers: the same scheduler, limits and errors, started in microseconds. What only
a process can do is missing: affinity, thread caps, memory limits, and being killed in the middle of a computation.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import StartupError, describe
from sluiceway_runtime.pool.clock import Timer
from sluiceway_runtime.pool.execution import serve
from sluiceway_runtime.pool.handler import WorkerBroken, load_handler
from sluiceway_runtime.pool.pool import Pool
from sluiceway_runtime.pool.spec import WorkerSpec
from sluiceway_runtime.pool.transport.channel import Channel, pair
from sluiceway_runtime.pool.transport.link import End, Ended, Heard, Link
from sluiceway_runtime.pool.transport.messages import (
    FromWorker,
    Leaving,
    Lost,
    Raised,
    Ready,
    Recall,
    Result,
    Run,
    StartFailed,
)

__all__ = ["Crash", "FakeClock", "InProcessPool"]


class Crash(BaseException):
    """Raised by a handler in an `InProcessPool`, it ends the worker as a crash ends a process."""


class InProcessPool(Pool):
    """A pool whose workers are threads of this process. Constructor and methods are those of `Pool`."""

    def _launch(self, placement: Placement, heard: Heard, ended: Ended) -> Link:
        return _ThreadWorker(self._spec, placement, heard, ended)


class _ThreadWorker:
    """Implements `Link`. Killing it cannot stop the thread, only disown it: its answer is not heard any more."""

    pid: int | None = None

    def __init__(self, spec: WorkerSpec, placement: Placement, heard: Heard, ended: Ended) -> None:
        self._spec = spec
        self._placement = placement
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Run | Recall | None] = queue.SimpleQueue()
        name = f"worker {placement.index}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def send(self, run: Run) -> None:
        self._inbox.put(cast("Run", _travelled(run)))

    def recall(self, recall: Recall) -> None:
        self._inbox.put(recall)

    def stop(self) -> None:
        self._stopping.set()
        self._inbox.put(None)

    def kill(self) -> None:
        self.stop()
        self._loop.call_soon(self._end, End("it was ended by SIGKILL"))

    async def wait_ended(self) -> None:
        await self._over.wait()

    def _work(self) -> None:
        try:
            handler = load_handler(self._spec.factory, self._spec.config)
            facts = dict(handler.setup(self._placement))
            self._tell(Ready(facts, 0))
            serve(
                handler,
                self._inbox,
                lambda told: self._tell(_sent(told)),
                self._stopping.is_set,
                overlap=self._spec.overlap,
            )
            self._tell(Leaving())
            end = End("it exited with code 0")
        except Crash as crash:
            end = End(f"it crashed {crash}".rstrip())
        except WorkerBroken:
            end = End("it exited with code 5", broken=True)
        except Exception as error:
            text = str(error) if isinstance(error, StartupError) else describe(error)
            self._tell(StartFailed(text))
            end = End(text)
        self._on_loop(self._end, end)

    def _tell(self, message: FromWorker) -> None:
        self._on_loop(self._hear, message)

    def _on_loop(self, callback: Callable[..., None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            return  # the test is over and its loop closed; nobody listens

    def _hear(self, message: FromWorker) -> None:
        if not self._over.is_set():
            self._heard(message)

    def _end(self, end: End) -> None:
        if not self._over.is_set():
            self._over.set()
            self._ended(end)


def _sent(answer: Result | Raised | Lost) -> FromWorker:
    try:
        return cast("FromWorker", _travelled(answer))
    except Exception as error:
        return Raised(answer.batch_id, f"results cannot be sent: {describe(error)}")


def _travelled(message: object) -> object:
    """The message as it would arrive: pickled, its buffers copied and read-only."""
    here, there = pair()
    sender, receiver = Channel(here), Channel(there)
    try:
        sender.send(message)
        return receiver.receive()
    finally:
        sender.close()
        receiver.close()


@dataclass(slots=True, order=True)
class _Due:
    at_s: float
    number: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A `Clock` that stands still until it is moved.

    Deadlines for a pool on this clock are made as `Deadline(clock.now_s() + seconds)`.
    """

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s
        self._due: list[_Due] = []
        self._numbers = itertools.count()

    def now_s(self) -> float:
        """The moment that it was moved to."""
        return self._now_s

    def call_at(self, at_s: float, callback: Callable[[], None]) -> Timer:
        """Call from within the `advance` that reaches `at_s`."""
        due = _Due(at_s, next(self._numbers), callback)
        heapq.heappush(self._due, due)
        return due

    def advance(self, seconds: float) -> None:
        """Move on, and make the calls that become due, each at its own moment."""
        target_s = self._now_s + seconds
        while self._due and self._due[0].at_s <= target_s:
            due = heapq.heappop(self._due)
            self._now_s = max(self._now_s, due.at_s)
            if due.callback is not None:
                due.callback()
        self._now_s = target_s
