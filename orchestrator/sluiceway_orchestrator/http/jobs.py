"""Runs the jobs of the HTTP port: keeps the limit on jobs and ends what nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from sluiceway_runtime.errors import QueueFull

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.flow import Flow
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed, Outbox

__all__ = ["Jobs"]

# When every job slot is taken, another try before this is unlikely to fare better.
BUSY_RETRY_S = 0.25


class Jobs:
    """Runs jobs, up to `max_jobs` together with those that run elsewhere.

    Args:
        config: has the limits.
        flow: does the work.
        elsewhere: says how many jobs came in through gRPC.
    """

    def __init__(self, config: OrchestratorConfig, flow: Flow, elsewhere: Callable[[], int] = lambda: 0) -> None:
        self._config = config
        self._flow = flow
        self._elsewhere = elsewhere
        self._running = 0

    def __repr__(self) -> str:
        return f"<Jobs running={self._running}>"

    @property
    def running(self) -> int:
        """Jobs in progress."""
        return self._running

    async def run(self, job: Job) -> AsyncGenerator[Addressed]:
        """Run a job and hand out its events; closing the generator ends everything that runs for the job.

        Raises:
            QueueFull: every job slot is taken, or the job could not be done in time.
        """
        if self._running + self._elsewhere() >= self._config.max_jobs:
            raise QueueFull("every job slot is taken", retry_after_s=BUSY_RETRY_S)
        self._flow.admit(job)
        outbox = Outbox(
            self._config.events_ahead,
            coalesce_s=self._config.coalesce_ms / 1000,
            coalesce_items=self._config.coalesce_items,
        )
        self._running += 1
        runner = asyncio.create_task(self._run(job, outbox), name=f"job {job.job_id}")
        try:
            async for addressed in outbox:
                yield addressed
            await runner
        finally:
            runner.cancel()
            outbox.discard()
            await asyncio.wait((runner,))
            self._running -= 1

    async def _run(self, job: Job, outbox: Outbox) -> None:
        try:
            await self._flow.run(job, outbox)
        finally:
            outbox.close()
