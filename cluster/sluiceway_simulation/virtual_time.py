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
import math
import random
from asyncio import events
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


class _Timer(asyncio.TimerHandle):
    """Counts itself when it fires."""

    __slots__ = ()

    def _run(self) -> None:
        self._loop.fired += 1  # type: ignore[attr-defined]  # only a VirtualLoop makes these
        super()._run()


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
        # The base class asks this for what has come in; it is where time passes.
        self._selector = self
        self.set_task_factory(_make_task)
        self.slow_callback_duration = float("inf")

    def time(self) -> float:
        """Seconds since some moment."""
        return self._now_s

    def jump(self, seconds: float) -> None:
        """The machine stood still for so long: all that was due meanwhile is late."""
        self._now_s += seconds

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing ever comes in; the time until the next timer passes at once.

        Raises:
            Stuck: there is none, or time has not passed for very long.
        """
        self.turns += 1
        if self.turns % TURNS_BETWEEN_COLLECTIONS == 0:
            gc.collect()
        if timeout is None:
            raise Stuck("everything waits, and nothing will happen")
        if timeout > 0:
            self._now_s += timeout
            self._turns_now = 0
        else:
            self._turns_now += 1
            if self._turns_now > MOST_TURNS_AT_A_MOMENT:
                raise Stuck(f"{MOST_TURNS_AT_A_MOMENT} turns of the loop took no time")
        # What is due within this of now fires on this turn; it is the least that there is. Were a timer early, whoever
        # looks at the clock and waits again for the same moment would do so for ever, as time stands still meanwhile.
        self._clock_resolution = math.ulp(self._now_s)
        return []

    def create_future(self) -> asyncio.Future[Any]:
        """One that is in the same place of a set each time."""
        return _Future(loop=self)

    def call_at(  # type: ignore[override]  # the types of arguments are asyncio's to check
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As the base class, with a timer that is counted."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio's own call_at
        return timer

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # whatever is asked for
        """Threads have a time of their own, so there are none."""
        raise RuntimeError("nothing in a simulation may leave its loop")

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

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
