"""One machine whose cores several workers and fronts share: with more that wants to run than cores, all get slower."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

__all__ = ["Job", "Machine", "compute"]

# What is due within this has ended: a remainder of rounding is no work.
LEAST_S = 1e-9


class Job:
    """Work that a machine does; cancelling it takes it away."""

    __slots__ = ("_machine", "done", "over", "threads")

    def __init__(self, machine: Machine, threads: int, done: Callable[[], object]) -> None:
        self._machine = machine
        self.threads = threads
        self.done = done
        self.over = False

    def cancel(self) -> None:
        """Do no more of it, and do not tell of its end."""
        if not self.over:
            self.over = True
            self._machine.leave(self)


class Machine:
    """Divides its cores evenly between the threads that want to run.

    All jobs make progress at one rate, which is 1 while there are cores enough. So one clock of progress serves all of
    them, and each ends when that clock shows what it showed at its beginning and its own seconds more.
    """

    def __init__(self, cores: int) -> None:
        if cores < 1:
            raise ValueError("a machine has at least one core")
        self._cores = cores
        self._loop = asyncio.get_running_loop()
        self._jobs: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._wanted = 0
        self._progress_s = 0.0
        self._looked_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Machine {self._wanted} threads on {self._cores} cores>"

    def begin(self, seconds: float, threads: int, done: Callable[[], object]) -> Job:
        """Work for so many seconds of so many cores at a time, then call `done`."""
        self._advance()
        job = Job(self, threads, done)
        heapq.heappush(self._jobs, (self._progress_s + seconds, next(self._numbers), job))
        self._wanted += threads
        self._wait()
        return job

    async def work(self, seconds: float) -> None:
        """One thread works for so many seconds."""
        over = self._loop.create_future()
        job = self.begin(seconds, 1, lambda: over.set_result(None))
        try:
            await over
        finally:
            job.cancel()

    def leave(self, job: Job) -> None:
        """For jobs alone: one is gone before its end."""
        self._advance()
        self._wanted -= job.threads
        self._wait()

    @property
    def _rate(self) -> float:
        return min(1.0, self._cores / self._wanted) if self._wanted else 1.0

    def _advance(self) -> None:
        now_s = self._loop.time()
        self._progress_s += (now_s - self._looked_s) * self._rate
        self._looked_s = now_s

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._jobs and self._jobs[0][2].over:
            heapq.heappop(self._jobs)
        if self._jobs:
            left_s = max(0.0, self._jobs[0][0] - self._progress_s)
            self._timer = self._loop.call_later(left_s / self._rate, self._end)

    def _end(self) -> None:
        self._timer = None
        self._advance()
        ended = []
        while self._jobs and (self._jobs[0][2].over or self._jobs[0][0] - self._progress_s <= LEAST_S):
            job = heapq.heappop(self._jobs)[2]
            if not job.over:
                job.over = True
                self._wanted -= job.threads
                ended.append(job)
        self._wait()
        for job in ended:
            job.done()


async def compute(machine: Machine | None, seconds: float) -> None:
    """One thread computes for so many seconds: of a machine, or with a core of its own."""
    if machine is None:
        await asyncio.sleep(seconds)
    else:
        await machine.work(seconds)
