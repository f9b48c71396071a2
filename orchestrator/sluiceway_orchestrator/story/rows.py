"""What is remembered of jobs, as it is read. Kept as plain tuples of the same order."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["AttemptRow", "Fault", "JobRow", "SourceRow", "SpanRow", "job_row"]

# Reason, message and story of an error; empty where there is none.
Fault = tuple[str, ...]


class SpanRow(NamedTuple):
    """Time that was spent on something. Times are of this process's monotonic clock.

    Attributes:
        kind: as in `SpanKind` of the contract, in small letters.
        step: of the pipeline, or name of a call of an API; empty for what concerns the source.
        fault: reason, message and story of what it failed with; empty if it did not.
        span_id: in traces; 0 where it has none yet.
    """

    kind: str
    step: str
    begun_s: float
    ended_s: float
    fault: Fault = ()
    span_id: int = 0


class AttemptRow(NamedTuple):
    """One call of a stage; see `Attempt`."""

    step: str
    stage: str
    items: int
    since_s: float
    asked_s: float
    sent_s: float
    ended_s: float
    address: str
    call: int
    failed: int
    fault: Fault
    timings: tuple[float, ...]
    span_id: int


class SourceRow(NamedTuple):
    """What is remembered of a source.

    Attributes:
        ended_s: 0 while it runs.
        left_out: spans that were too many.
    """

    source_id: str
    ended_s: float
    fault: Fault
    spans: tuple[SpanRow, ...]
    attempts: tuple[AttemptRow, ...]
    left_out: int


class JobRow(NamedTuple):
    """What is remembered of a job.

    Attributes:
        call: number of the call that brought it.
        ended_s: 0 while it runs.
    """

    request_id: str
    job_id: str
    pipeline: str
    call: int
    accepted_s: float
    ended_s: float
    sources: tuple[SourceRow, ...]


def job_row(row: tuple[Any, ...]) -> JobRow:
    """Read what is kept of a job."""
    return JobRow._make((*row[:6], tuple(_source(source) for source in row[6])))


def _source(row: tuple[Any, ...]) -> SourceRow:
    name, ended_s, fault, spans, attempts, left_out = row
    return SourceRow(
        name,
        ended_s,
        fault,
        tuple(SpanRow(*span) for span in spans),
        tuple(AttemptRow(*attempt) for attempt in attempts),
        left_out,
    )
