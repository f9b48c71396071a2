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
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from sluiceway_runtime import clock

__all__ = ["Stuck", "VirtualLoop", "current_loop", "simulate"]

Result = TypeVar("Result")

# What passes for an age on a machine that has just been started is tested as well: not 0.
BEGIN_S = 1000.0
# Turns of the loop without a moment of time: something runs in circles. Real bursts are thousands.
MOST_TURNS_AT_A_MOMENT = 1_000_000
# Of the loop, between two searches for rubbish, and between two looks at whether time passes.
TURNS_BETWEEN_LOOKS = 200_000
# Timers that are cancelled and still kept, at most, where they are not less than the others.
MOST_CANCELLED = 1000


class Stuck(Exception):
    """Nothing will ever happen any more, or time does not pass: whoever waits, waits for ever."""


class _Numbered:
    """What is in the same place of a set each time. Few futures ever come into one, so it has a number only then."""

    number = 0

    def __hash__(self) -> int:
        if not self.number:
            self.number = next(self.get_loop().numbers)  # type: ignore[attr-defined]
        return self.number


class _Task(_Numbered, asyncio.Task[Any]):
    """A task of the loop."""


class _Future(_Numbered, asyncio.Future[Any]):
    """A future of the loop."""


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
        numbers: of tasks, and of futures that came into a set.
        fired: timers that have fired. Messages, arrivals and faults all come by one.
        turns: of the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.fired = 0
        self.turns = 0
        self._now_s = BEGIN_S
        # Turns at the last look at whether time passes, and its moment; turns at which all objects were looked at.
        self._looked = (0, BEGIN_S)
        self._searched = 0
        self._ready: deque[_Entry] = deque()
        self._stopping = False
        self._timers: list[_Entry] = []
        self._orders = itertools.count()
        self._cancelled = 0
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
        if context is None:
            context = contextvars.copy_context()
        entry = _Entry((self._now_s + delay, next(self._orders), callback, args, context, self))
        heapq.heappush(self._timers, entry)
        return entry

    def create_future(self) -> asyncio.Future[Any]:
        """One that is in the same place of a set each time."""
        return _Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Likewise; as the base class, without its checks."""
        return _Task(coro, loop=self, name=name, context=context)  # type: ignore[arg-type]

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
        ready, timers = self._ready, self._timers
        while True:
            self.turns += 1
            if self.turns % TURNS_BETWEEN_LOOKS == 0:
                self._look()
            if not ready and not self._stopping:
                self._pass_time()
            if timers and timers[0][WHEN] <= self._now_s:
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

    def _pass_time(self) -> None:
        """Nothing is left to do at this moment: the time until the next timer passes at once."""
        timers = self._timers
        while timers and timers[0][CALLBACK] is None:
            heapq.heappop(timers)
            self._cancelled -= 1
        if not timers:
            raise Stuck("everything waits, and nothing will happen")
        self._now_s = max(self._now_s, timers[0][WHEN])

    def _collect(self) -> None:
        """Make ready what is due now."""
        ready, timers, now_s = self._ready, self._timers, self._now_s
        while timers and timers[0][WHEN] <= now_s:
            entry = heapq.heappop(timers)
            if entry[CALLBACK] is None:
                self._cancelled -= 1
            else:
                entry[LOOP] = None
                self.fired += 1
                ready.append(entry)

    def _look(self) -> None:
        """Whether time passes; and look for rubbish among what is new, and among all when turns are four times as many.

        What has lasted will mostly last. Looking at all of a thousand servers takes seconds.
        """
        turns, now_s = self._looked
        if now_s < self._now_s:
            self._looked = self.turns, self._now_s
        elif self.turns - turns >= MOST_TURNS_AT_A_MOMENT:
            raise Stuck(f"{MOST_TURNS_AT_A_MOMENT} turns of the loop took no time")
        if self.turns >= 4 * self._searched:
            self._searched = self.turns
            gc.collect()
        else:
            gc.collect(1)

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Note no generator: those that are left in the middle are closed as they are found, and none after the end."""

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # whatever is asked for
        """Threads have a time of their own, so there are none."""
        raise RuntimeError("nothing in a simulation may leave its loop")

    def _write_to_self(self) -> None:
        """Nobody sleeps who could be woken."""


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
    with (
        _same_each_time(seed),
        clock.running_on(loop.time),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        _known(loop),
    ):
        return runner.run(main())


@contextmanager
def _known(loop: VirtualLoop) -> Iterator[None]:
    """Tell all who ask which loop is running. Python 3.11 asks the system for the process's number first, each time."""
    own = events.get_running_loop
    asyncio.get_running_loop = events.get_running_loop = lambda: loop
    try:
        yield
    finally:
        asyncio.get_running_loop = events.get_running_loop = own


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
