"""The jobs that run, whichever port they came through: keeps their limit and ends what nobody reads."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.errors import DeadlineExceeded, QueueFull
from sluiceway_runtime.priority import Priority

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed, Outbox
from sluiceway_orchestrator.pipelines.executor import Executor

__all__ = ["Jobs", "read_by"]

# When every job slot is taken, another try before this is unlikely to fare better.
BUSY_RETRY_S = 0.25


class Jobs:
    """Runs jobs, up to `max_jobs` at once."""

    def __init__(self, config: OrchestratorConfig, executor: Executor, budget: MemoryBudget) -> None:
        self._config = config
        self._executor = executor
        self._budget = budget
        self._running = 0
        # Those that somebody holds; only whoever watches goes through them.
        self._outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<Jobs running={self._running}>"

    @property
    def running(self) -> int:
        """Jobs in progress."""
        return self._running

    @property
    def limit(self) -> int:
        """The most that there may be."""
        return self._config.max_jobs

    def unread(self) -> frozenset[tuple[int, int]]:
        """Of the lines of events that are full, each by its name and what was taken of it so far.

        A line that stands in two of these with the same number was not read in between.
        """
        return frozenset((id(outbox), outbox.taken) for outbox in self._outboxes if outbox.keeps_waiting)

    def check(self) -> None:
        """Raise QueueFull if every job slot is taken."""
        if self._running >= self._config.max_jobs:
            raise QueueFull("every job slot is taken", retry_after_s=BUSY_RETRY_S)

    def outbox(self, client: Hashable, priority: Priority = Priority.NORMAL) -> Outbox:
        """A line for the events of one call of a client; whoever reads it discards it."""
        outbox = Outbox(
            self._config.events_ahead,
            coalesce_s=self._config.coalesce_ms / 1000,
            coalesce_items=self._config.coalesce_items,
            account=self._budget.account(priority, client),
        )
        self._outboxes.add(outbox)
        return outbox

    def begin(self, job: Job, outbox: Outbox, create_task: Callable[..., asyncio.Task[None]]) -> asyncio.Task[None]:
        """Begin a job of a stream, whose outbox it shares with others; the task is the caller's to end.

        What its client has not heard when its time is over is not kept any longer.

        Raises:
            QueueFull: every job slot is taken.
        """
        return self._begin(job, self._run_shared(job, outbox), create_task)

    def _begin(
        self, job: Job, run: Coroutine[Any, Any, None], create_task: Callable[..., asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        try:
            self.check()
        except QueueFull:
            run.close()
            raise
        task = create_task(run, name=f"job {job.job_id}")
        # Counted outside of the task: one that is cancelled before its first step runs none of its own.
        self._running += 1
        task.add_done_callback(self._ended)
        return task

    def start(self, job: Job) -> tuple[asyncio.Task[None], Outbox]:
        """Begin a job that has a line of its own, for a call that would rather be refused than wait; see `read_by`.

        Whoever reads the line discards it when the time of the job is over, and with it what was not heard.

        Raises:
            QueueFull: every job slot is taken, or the job could not be done in time.
        """
        self._executor.admit(job)
        outbox = self.outbox(job.client, job.priority)
        try:
            return self._begin(job, self._executor.run(job, outbox), asyncio.create_task), outbox
        except QueueFull:
            outbox.discard()
            raise

    async def run(self, job: Job) -> AsyncGenerator[Addressed]:
        """Run a job and hand out its events; closing the generator ends everything that runs for the job.

        Raises:
            QueueFull: every job slot is taken, or the job could not be done in time.
        """
        runner, outbox = self.start(job)
        async with read_by(runner, outbox):
            async for addressed in outbox:
                yield addressed

    async def _run_shared(self, job: Job, outbox: Outbox) -> None:
        await self._executor.run(job, outbox)
        if outbox.is_told(job.job_id):
            return
        error = DeadlineExceeded("the time ran out before the client had read it")
        names = [source.source_id for source in job.sources]
        outbox.expire_later(job.job_id, names, error, job.deadline.remaining_s())

    def _ended(self, task: asyncio.Task[None]) -> None:
        del task
        self._running -= 1


@asynccontextmanager
async def read_by(runner: asyncio.Task[None], outbox: Outbox) -> AsyncIterator[None]:
    """Keep work going for whoever reads its events in this block: after the block nothing runs for it.

    Raises what the work raised, once every event was read.
    """
    runner.add_done_callback(lambda _: outbox.close())
    try:
        yield
        await runner
    finally:
        outbox.discard()
        if not runner.done():
            runner.cancel()
            await asyncio.wait((runner,))
