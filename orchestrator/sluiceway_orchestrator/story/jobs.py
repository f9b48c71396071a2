"""The jobs that run, and the latest ones that have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.logs import current_request_id
from sluiceway_runtime.recorder import MOST_REQUESTS, Ring, current_call
from sluiceway_runtime.tracing import TraceContext, Tracer, current_trace

from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.story.rows import JobRow, job_row
from sluiceway_orchestrator.story.source import NOBODYS, SourceStory

__all__ = ["JobLog", "JobStory", "TracedJob"]

# Of all jobs together, for each: that of a single photograph takes about 600, and a page with many calls of APIs a lot.
JOB_BYTES = 1536


class TracedJob(NamedTuple):
    """The span of a job.

    Attributes:
        parent_id: the span above it; 0 if there is none.
        link: the stream that brought it, which may bring thousands; None for a job with a call of its own.
    """

    at: TraceContext
    parent_id: int
    link: TraceContext | None = None


class JobStory:
    """Notes on one job."""

    __slots__ = ("_job", "_sources", "call", "trace")

    def __init__(self, job: Job, call: int, trace: TracedJob | None = None) -> None:
        self.trace = trace
        self._job = job
        self._sources: list[SourceStory] = []
        self.call = call

    def source(self, source_id: str) -> SourceStory:
        """Begin with a source."""
        trace = self.trace.at if self.trace is not None else None
        story = SourceStory(source_id, self._job.accepted_s, trace)
        self._sources.append(story)
        return story

    def row(self, ended_s: float) -> tuple[Any, ...]:
        """All of it so far, in the order of `JobRow`, of plain tuples: it keeps no image of the job."""
        job = self._job
        sources = tuple([source.row() for source in self._sources])
        return (job.request_id, job.job_id, job.pipeline, self.call, job.accepted_s, ended_s, sources)

    @property
    def request_id(self) -> str:
        """Of the job."""
        return self._job.request_id


class _NobodysJob(JobStory):
    """Of jobs that nobody remembers and nobody traces."""

    __slots__ = ()

    def __init__(self) -> None:
        """Nothing."""

    def source(self, source_id: str) -> SourceStory:  # noqa: ARG002
        """The story that takes no notes."""
        return NOBODYS


_NOBODYS = _NobodysJob()


class JobLog:
    """The jobs that run, and the latest ones that have ended.

    Args:
        most: jobs that are remembered; 0 for none.
        tracer: begins traces; None where there are none.
        tell: told of jobs that have ended and whose traces are recorded.
    """

    def __init__(
        self,
        most: int = MOST_REQUESTS,
        *,
        tracer: Tracer | None = None,
        tell: Callable[[TracedJob, JobRow], None] = lambda *_: None,
    ) -> None:
        self._most = most
        self._tracer = tracer
        self._tell = tell
        self._ring = Ring(most, most * JOB_BYTES)
        self._running: dict[int, JobStory] = {}

    def __repr__(self) -> str:
        return f"<JobLog running={len(self._running)} ended={len(self._ring)}>"

    def begin(self, job: Job) -> JobStory:
        """A job begins; whoever says so says when it is over."""
        if not self._most and self._tracer is None:
            return _NOBODYS
        trace = self._begin_trace(job) if self._tracer is not None else None
        story = JobStory(job, current_call.get(), trace)
        self._running[id(story)] = story
        return story

    def over(self, story: JobStory) -> None:
        """A job has ended, one way or the other."""
        if story is _NOBODYS:
            return
        del self._running[id(story)]
        row = story.row(monotonic())
        if self._most:
            self._ring.add(row)
        if story.trace is not None and story.trace.at.sampled:
            self._tell(story.trace, job_row(row))

    def of(self, request_id: str) -> list[JobRow]:
        """Jobs of a request: those that have ended, in the order of their ends, then those that run."""
        ended = [row for row in self._ring.holding(request_id) if row[0] == request_id]
        running = [story.row(0.0) for story in self._running.values() if story.request_id == request_id]
        return [job_row(row) for row in (*ended, *running)]

    @property
    def oldest_s(self) -> float | None:
        """When the oldest job was accepted that is remembered, None if none is."""
        oldest = self._ring.oldest
        return None if oldest is None else float(oldest[4])

    def _begin_trace(self, job: Job) -> TracedJob:
        assert self._tracer is not None
        call = current_trace.get()
        if call is not None and current_request_id.get() == job.request_id:
            return TracedJob(call.below(), call.span_id)
        # Of a stream, which is open for hours: a trace of its own.
        return TracedJob(self._tracer.begin(None, "job"), 0, call)
