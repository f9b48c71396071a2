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


class _Entry(list[Any]):
    """Something to call: its moment, a number of its own, the callback, its arguments and context, and the loop if a
    timer of it. As a list it is compared without any code of Python: nearly all that a simulation does is one of these.

    The callback of one that was cancelled is None.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it."""
        if self[CALLBACK] is not None:
            self[CALLBACK] = self[ARGUMENTS] = None
            if self[LOOP] is not None:
                self[LOOP].timer_cancelled()

    def cancelled(self) -> bool:
        """Whether it will not be called."""
        return self[CALLBACK] is None

    def when(self) -> float:
        """The moment."""
        return self[WHEN]  # type: ignore[no-any-return]


WHEN, CALLBACK, ARGUMENTS, LOOP = 0, 2, 3, 5


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
        self._ready: deque[_Entry] = deque()
        self._stopping = False
        self._timers: list[_Entry] = []
        self._orders = itertools.count()
        self._cancelled = 0
        self.set_task_factory(_make_task)
        self.slow_callback_duration = float("inf")

    def time(self) -> float:
        """Seconds since some moment."""
        return self._now_s

    @property
    def waiting_timers(self) -> int:
        """That are kept, those that were cancelled and not yet thrown away included."""
        return len(self._timers)

    def jump(self, seconds: float) -> None:
        """The machine stood still for so long: all that was due meanwhile is late."""
        self._now_s += seconds

    # Entries are no handles of asyncio, and have of those what is used.

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Entry:
        """As the base class, without its checks."""
        entry = _Entry((0.0, 0, callback, args, contextvars.copy_context() if context is None else context, None))
        self._ready.append(entry)
        return entry

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Entry:
        """Asyncio calls this itself for generators that were left in the middle; there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Entry:
        """As the base class. Timers of one moment fire in the order in which they were set."""
        if context is None:
            context = contextvars.copy_context()
        entry = _Entry((when, next(self._orders), callback, args, context, self))
        heapq.heappush(self._timers, entry)
        return entry

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Entry:
        """As the base class."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """One that is in the same place of a set each time."""
        return _Future(loop=self)

    def timer_cancelled(self) -> None:
        """Deadlines are set for most of what is done, and nearly all are cancelled: not kept until their time."""
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled * 2 > len(self._timers):
            # In place, as it may be the loop itself that is at it.
            self._timers[:] = [entry for entry in self._timers if entry[CALLBACK] is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _run_once(self) -> None:
        """Turn until the loop is told to stop; the base class calls for each turn, which costs as much as a turn.

        Raises:
            Stuck: nothing will happen any more, or time has not passed for very long.
        """
        ready = self._ready
        while True:
            self._collect()
            # What becomes ready meanwhile is for the next turn.
            for _ in range(len(ready)):
                _, _, callback, arguments, context, _ = ready.popleft()
                if callback is not None:
                    try:
                        context.run(callback, *arguments)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self.call_exception_handler({"message": f"{callback} raised", "exception": error})
            if self._stopping:
                return

    def _collect(self) -> None:
        """Make ready what is due now, or where nothing is, what is due next: the time until then passes at once."""
        self.turns += 1
        if self.turns % TURNS_BETWEEN_COLLECTIONS == 0:
            gc.collect()
        ready, timers = self._ready, self._timers
        if ready or self._stopping:
            self._turns_now += 1
            if self._turns_now > MOST_TURNS_AT_A_MOMENT:
                raise Stuck(f"{MOST_TURNS_AT_A_MOMENT} turns of the loop took no time")
        else:
            while timers and timers[0][CALLBACK] is None:
                heapq.heappop(timers)
                self._cancelled -= 1
            if not timers:
                raise Stuck("everything waits, and nothing will happen")
            if timers[0][WHEN] > self._now_s:
                self._now_s = timers[0][WHEN]
                self._turns_now = 0
        while timers and timers[0][WHEN] <= self._now_s:
            entry = heapq.heappop(timers)
            if entry[CALLBACK] is None:
                self._cancelled -= 1
            else:
                entry[LOOP] = None
                self.fired += 1
                ready.append(entry)

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
