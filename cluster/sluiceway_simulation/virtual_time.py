"""An event loop whose time passes only when nothing is left to do at a moment: hours of a cluster in seconds.

It is the loop of asyncio itself, with another clock and nothing to wait for outside. What runs on it is the same each
time: tasks and futures have hashes of their own (a set of them has one order), chance has the seed, and rubbish is
looked for at fixed moments.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import itertools
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from sluiceway_runtime import clock

__all__ = ["Stuck", "VirtualLoop", "current_loop", "simulate"]

Result = TypeVar("Result")

# What passes for an age on a machine that has just been started is tested as well: not 0.
BEGIN_S = 1000.0
# Turns of the loop without a moment of time: something runs in circles. Real bursts are thousands.
MOST_TURNS_AT_A_MOMENT = 1_000_000
# Of the loop, between two searches for rubbish.
TURNS_BETWEEN_COLLECTIONS = 200_000
# Timers that are cancelled and still kept, at most, where they are not less than the others.
MOST_CANCELLED = 1000


class Stuck(Exception):
    """Nothing will ever happen any more, or time does not pass: whoever waits, waits for ever."""


class _Task(asyncio.Task[Any]):
    """A task that is in the same place of a set each time."""

    def __new__(cls, *_: Any, loop: VirtualLoop, **__: Any) -> _Task:
        task = super().__new__(cls)
        task.number = next(loop.numbers)
        return task

    number: int

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """Likewise."""

    def __new__(cls, *, loop: VirtualLoop) -> _Future:
        future = super().__new__(cls)
        future.number = next(loop.numbers)
        return future

    number: int

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop in which waiting costs nothing, and nothing comes from outside.

    Attributes:
        numbers: of tasks and futures.
        fired: timers that have fired. Messages, arrivals and faults all come by one.
        turns: of the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.fired = 0
        self.turns = 0
        self._now_s = BEGIN_S
        self._turns_now = 0
        self._ready: deque[asyncio.Handle] = deque()
        self._stopping = False
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._orders = itertools.count()
        self._cancelled = 0
        self.set_task_factory(_make_task)
        self.slow_callback_duration = float("inf")

    def time(self) -> float:
        """Seconds since some moment."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """The machine stood still for so long: all that was due meanwhile is late."""
        self._now_s += seconds

    def call_soon(  # type: ignore[override]  # as of `call_at`
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As the base class, without its checks: nearly all that a simulation does comes by here."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """One that is in the same place of a set each time."""
        return _Future(loop=self)

    def call_at(  # type: ignore[override]  # the types of arguments are asyncio's to check
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As the base class. Timers of one moment fire in the order in which they were set."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._orders), timer))
        # A timer that is cancelled tells the loop only if it is told to.
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio's own call_at
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Deadlines are set for most of what is done, and nearly all are cancelled: not kept until their time."""
        del handle
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _run_once(self) -> None:
        """One turn: what is ready, or where nothing is, the time until the next timer passes at once.

        Raises:
            Stuck: there is none, or time has not passed for very long.
        """
        self.turns += 1
        if self.turns % TURNS_BETWEEN_COLLECTIONS == 0:
            gc.collect()
        ready, timers = self._ready, self._timers
        if ready or self._stopping:
            self._turns_now += 1
            if self._turns_now > MOST_TURNS_AT_A_MOMENT:
                raise Stuck(f"{MOST_TURNS_AT_A_MOMENT} turns of the loop took no time")
        else:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
                self._cancelled -= 1
            if not timers:
                raise Stuck("everything waits, and nothing will happen")
            if timers[0][0] > self._now_s:
                self._now_s = timers[0][0]
                self._turns_now = 0
        while timers and timers[0][0] <= self._now_s:
            timer = heapq.heappop(timers)[2]
            if timer.cancelled():
                self._cancelled -= 1
            else:
                timer._scheduled = False  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio's own
                self.fired += 1
                ready.append(timer)
        # What becomes ready meanwhile is for the next turn.
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - as asyncio's own

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # whatever is asked for
        """Threads have a time of their own, so there are none."""
        raise RuntimeError("nothing in a simulation may leave its loop")

    def _write_to_self(self) -> None:
        """Nobody sleeps who could be woken."""


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: contextvars.Context | None = None,
) -> asyncio.Task[Any]:
    return _Task(coroutine, loop=loop, context=context)  # type: ignore[arg-type]


def current_loop() -> VirtualLoop:
    """The loop that runs; for code that is only ever simulated."""
    loop = events.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def simulate(main: Callable[[], Coroutine[Any, Any, Result]], *, seed: int) -> Result:
    """Run a coroutine to its end in virtual time.

    Args:
        main: makes it.
        seed: of all chance, that of the code under simulation included.

    Raises:
        Stuck: it would never end.
    """
    loop = VirtualLoop()
    with _same_each_time(seed), clock.running_on(loop.time), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


@contextmanager
def _same_each_time(seed: int) -> Iterator[None]:
    state, collecting = random.getstate(), gc.isenabled()
    random.seed(seed)
    # What was left by others must not be found during this run.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        random.setstate(state)
        if collecting:
            gc.enable()
