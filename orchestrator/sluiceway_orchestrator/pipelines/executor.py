"""How jobs go through their pipelines: each source by itself, within its time, and with an account of what it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.cancellation import was_asked_to_end
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import DeadlineExceeded, Internal, SluicewayError, Unavailable
from sluiceway_runtime.logs import current_request_id, of_request
from sluiceway_runtime.together import nursery

from sluiceway_orchestrator.admission import Admission
from sluiceway_orchestrator.events import JobDone, SourceDone, SourceFailed
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_orchestrator.gate import Gate
from sluiceway_orchestrator.job import Job, Source
from sluiceway_orchestrator.metrics.sources import SourceMetrics
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.pipelines.binding import Binder
from sluiceway_orchestrator.pipelines.estimate import Estimate
from sluiceway_orchestrator.pipelines.source_run import run_source
from sluiceway_orchestrator.pipelines.source_state import Parts, SourceState
from sluiceway_orchestrator.plan import Pipeline, Step
from sluiceway_orchestrator.stages.detection import DetectionClient
from sluiceway_orchestrator.stages.recognition import RecognitionClient
from sluiceway_orchestrator.story import JobLog, JobStory, SourceStory

__all__ = ["Executor"]

log = logging.getLogger(__name__)

# Codes of what no server can help.
_OF_THE_SENDER = frozenset(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED", "CANCELLED"))
# What an answer of detection is taken to be before the first one came; less where the budget is small, so that some
# sources may always begin.
ASSUMED_ANSWER_BYTES = 24 * 2**20
ASSUMED_ANSWER_PART = 1 / 10


class Executor:
    """Runs jobs. Holds no state of a job once its `run` has ended.

    Args:
        pipelines: by name.
        budget: of the process, where each source has an account.
        saturated: whether the stages of a pipeline are there and one has all that it can work on.
        longest_s: see `Admission`.
        jobs: remembers what became of each.

    Attributes:
        metrics: of the sources that it ran.
    """

    def __init__(
        self,
        *,
        pipelines: Mapping[str, Pipeline],
        fetcher: Fetcher,
        binder: Binder,
        detectors: Mapping[str, DetectionClient],
        readers: Mapping[str, RecognitionClient],
        gate: Gate,
        budget: MemoryBudget,
        max_crops_per_call: int,
        saturated: Callable[[Pipeline], bool] = lambda _: False,
        longest_s: float | None = None,
        jobs: JobLog | None = None,
    ) -> None:
        self._jobs = jobs or JobLog()
        self._pipelines = pipelines
        self._gate = gate
        self._budget = budget
        self._saturated = saturated
        # How fast sources leave says something of their own pipeline alone: others may find its stages idle.
        self._admissions = {name: Admission(longest_s) for name in pipelines}
        # What is detected alone brings no crops, and is a pipeline of its own here.
        self._estimates: dict[tuple[Pipeline, int], Estimate] = {}
        self.metrics = SourceMetrics(pipelines.values())
        values_read = self.metrics.values_read
        self._parts = Parts(fetcher, binder, detectors, readers, self._estimate, max_crops_per_call, values_read)

    def admit(self, job: Job) -> None:
        """Refuse a job that could not be done in time; for calls that would rather hear that than wait.

        Raises:
            QueueFull: with the time after which to try again.
        """
        busy = self._saturated(self._pipeline(job))
        admission = self._admissions[job.pipeline]
        admission.check(job.client, job.priority, job.deadline.remaining_s(), monotonic(), busy=busy)

    async def run(self, job: Job, outbox: Outbox) -> None:
        """Run a job to its end and put its events into the outbox, the last one `JobDone`.

        Cancelling this cancels everything that runs for the job, before it returns.
        """
        pipeline = self._pipeline(job)
        story = self._jobs.begin(job)
        # That of the call, but for jobs of a stream, which have ids of their own.
        current_request_id.set(job.request_id)
        try:
            succeeded = await self._sources(job, pipeline, outbox, story)
        finally:
            self._jobs.over(story)
        failed = len(job.sources) - succeeded
        # The log line has the request id as well, which the stages log too.
        log.debug("job %r: %d sources done, %d failed", job.job_id, succeeded, failed)
        outbox.put_last(job.job_id, "", JobDone(succeeded, failed))

    async def _sources(self, job: Job, pipeline: Pipeline, outbox: Outbox, story: JobStory) -> int:
        """Run the sources of a job; returns how many succeeded."""
        if len(job.sources) == 1:
            # As most jobs are: a task of its own would only wait for another.
            return int(await self._counted(job, job.sources[0], pipeline, outbox, story))
        async with nursery() as group:
            tasks = [group.create_task(self._counted(job, source, pipeline, outbox, story)) for source in job.sources]
        return sum(task.result() for task in tasks)

    def _pipeline(self, job: Job) -> Pipeline:
        pipeline = self._pipelines[job.pipeline]
        return pipeline.detecting if job.detect_only else pipeline

    async def _counted(self, job: Job, source: Source, pipeline: Pipeline, outbox: Outbox, notes: JobStory) -> bool:
        admission = self._admissions[job.pipeline]
        admission.enter(job.client, job.priority, 1)
        story = notes.source(source.source_id)
        last: SourceDone | SourceFailed | None = None
        try:
            last = await self._bounded(job, source, pipeline, outbox, story)
        finally:
            now_s = monotonic()
            admission.leave(job.client, job.priority, now_s, busy=self._saturated(pipeline))
            self.metrics.ended(job.pipeline, last, now_s - job.accepted_s)
        outbox.put_last(job.job_id, source.source_id, last)
        story.end(last.error if isinstance(last, SourceFailed) else None)
        return isinstance(last, SourceDone)

    async def _bounded(
        self, job: Job, source: Source, pipeline: Pipeline, outbox: Outbox, story: SourceStory
    ) -> SourceDone | SourceFailed:
        """Run one source within the time of its job, whatever it waits for. Raises only what cancels it."""
        begun: list[SourceState] = []
        try:
            async with asyncio.timeout(job.deadline.remaining_s()):
                return await self._source(job, source, pipeline, outbox, begun=begun, story=story)
        except SluicewayError as failure:
            # Without the frames that it came through. They know the tasks that it came out of, and the image: a circle,
            # which would keep it until somebody looks for garbage.
            failure.__traceback__ = failure.__context__ = failure.__cause__ = None
            error = failure
        except TimeoutError:
            error = DeadlineExceeded("the time ran out")
        except asyncio.CancelledError:
            if was_asked_to_end():
                raise
            log.exception("job %r: what it waited for was cancelled", job.job_id, extra=of_request(job.request_id))
            error = Unavailable("the work was broken off", retry_after_s=1.0)
        except Exception:
            log.exception("job %r: a fault of the program", job.job_id, extra=of_request(job.request_id))
            error = Internal("internal error")
        _tell_failure(job, source, begun[0].where if begun else "admission", error)
        return SourceFailed(error)

    async def _source(
        self,
        job: Job,
        source: Source,
        pipeline: Pipeline,
        outbox: Outbox,
        *,
        begun: list[SourceState],
        story: SourceStory,
    ) -> SourceDone:
        """Run it once its turn has come; `begun` gets its state, which tells whoever catches its end where it was."""
        story.note("turn")
        try:
            await self._gate.enter(job.client, job.priority, job.deadline)
        finally:
            story.note("gate")
        try:
            with self._budget.account(job.priority, job.client) as account:
                state = SourceState(
                    job, source, pipeline, parts=self._parts, outbox=outbox, account=account, story=story
                )
                begun.append(state)
                return await run_source(state)
        finally:
            self._gate.leave(job.client)

    def _estimate(self, pipeline: Pipeline, step: Step) -> Estimate:
        known = self._estimates.get((pipeline, step.index))
        if known is None:
            assumed = min(ASSUMED_ANSWER_BYTES, self._budget.total_bytes * ASSUMED_ANSWER_PART)
            known = self._estimates[pipeline, step.index] = Estimate(assumed)
        return known


def _tell_failure(job: Job, source: Source, where: str, error: SluicewayError) -> None:
    """One line for a source that failed; what is the sender's own doing is told, and is no warning."""
    level = logging.INFO if error.code in _OF_THE_SENDER else logging.WARNING
    log.log(
        level,
        "source %.100r of job %.100r failed at %s: %s: %.500s",
        source.source_id,
        job.job_id,
        where,
        error.reason,
        # Of a server of another's, or of a caller of a user's own: it may have lines.
        " ".join(error.message.split()),
        extra=of_request(job.request_id),
    )
