"""What servers remember of a request: frozen, typed, and free of gRPC.

All times are durations in milliseconds, or positions since the beginning of one call on the clock of the one server
that tells them. Nothing compares the clocks of two machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sluiceway.client.regions import error_to_dict
from sluiceway.client.results import StageTimings
from sluiceway.errors import SluicewayError

__all__ = ["Batch", "Call", "Explanation", "ServerStory", "SourceStory", "Span", "SpanKind"]


class SpanKind(StrEnum):
    """What the time of a span was spent on; `recorder.proto` says more of each."""

    UNKNOWN = "unknown"
    DOOR = "door"  # let in, and read
    TURN = "turn"  # known, and not taken up yet by the event loop
    GATE = "gate"  # its turn among all sources
    FETCH = "fetch"
    BIND = "bind"  # a version of each stage
    ROOM = "room"  # memory
    LINE = "line"  # a replica with room
    CALL = "call"  # a replica, from sending to the end of its answer
    API = "api"
    HANDLE = "handle"  # an answer taken in
    TELL = "tell"  # a client that reads slowly; within other spans
    AGAIN = "again"  # begun anew, as a version went away
    FINISH = "finish"  # from the last answer to the last event
    QUEUE = "queue"  # in the queue of a stage
    BATCH = "batch"  # with a worker


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that went through a worker together.

    Attributes:
        id: counts the batches of a server.
        worker: its index.
        items: in all.
        behind_ms: that it waited at the worker behind others.
        compute_ms: in the worker's own measure; 0 where it did not come to its end.
        other_requests: ids of others that were in it, 16 at most.
        other_request_count: how many those were.
        fault: what went wrong with it; empty if nothing did.
    """

    id: int
    worker: int
    items: int
    behind_ms: float = 0.0
    compute_ms: float = 0.0
    other_requests: tuple[str, ...] = ()
    other_request_count: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Time of a call that was spent on one thing.

    Attributes:
        start_ms: since the beginning of the call, on the clock of the server that tells it.
        source: its id in the job; empty on stages.
        step: of the pipeline, or name of the call of an API.
        stage, address, call: what was called, where, and the number by which its story has it; 0 where it said none.
        items: images or crops.
        failed_items: those that failed by themselves.
        error: why it failed; of a call that was tried again this is the reason.
        batch: of kinds QUEUE and BATCH.
        timings: what the one that was called said itself; None where it said nothing.
    """

    kind: SpanKind
    start_ms: float
    duration_ms: float
    source: str = ""
    step: str = ""
    stage: str = ""
    address: str = ""
    call: int = 0
    items: int = 0
    failed_items: int = 0
    error: SluicewayError | None = None
    batch: Batch | None = None
    timings: StageTimings | None = None

    @property
    def end_ms(self) -> float:
        """Where it ended."""
        return self.start_ms + self.duration_ms


@dataclass(frozen=True, slots=True)
class SourceStory:
    """What became of one source of a job; `duration_ms` runs from acceptance to its last event."""

    source: str
    duration_ms: float
    error: SluicewayError | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call that came to a server, or one job of a stream.

    Attributes:
        method: such as "Process"; "POST /v1/process" of HTTP; "job" of one of a stream.
        number: counts the calls of its server.
        ago_ms: how long ago it began.
        duration_ms: of a job from acceptance to its last event; of another call from its arrival to its end.
        before_ms: of a job: from the arrival of its call to its acceptance. Not in `duration_ms`.
        running: whether it had not ended.
        error: why it failed as a whole.
        spans: in the order of their starts.
        sources: of a job.
        spans_left_out: those that were too many to be remembered.
    """

    method: str
    duration_ms: float
    number: int = 0
    ago_ms: float = 0.0
    before_ms: float = 0.0
    running: bool = False
    error: SluicewayError | None = None
    spans: tuple[Span, ...] = ()
    sources: tuple[SourceStory, ...] = ()
    pipeline: str = ""
    job_id: str = ""
    spans_left_out: int = 0

    @property
    def is_job(self) -> bool:
        """Whether it was a job of an orchestrator."""
        return bool(self.sources)


@dataclass(frozen=True, slots=True)
class ServerStory:
    """What one server remembers of a request.

    Attributes:
        server: "orchestrator", or the name of the stage.
        instance: of the process, made up as it started.
        address: where it was asked.
        calls: of the request; empty where it remembers none.
        error: why there is no story.
        remembers_ms: how far back it remembers.
    """

    server: str
    instance: str = ""
    address: str = ""
    calls: tuple[Call, ...] = ()
    error: SluicewayError | None = None
    remembers_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The story of a request, by every server that could be asked.

    Attributes:
        servers: orchestrators, each followed by the replicas that it asked.
    """

    request_id: str
    servers: tuple[ServerStory, ...] = ()
    # Built once: a job has as many calls as a page has crops. By identity of a span.
    _other_side: dict[int, tuple[ServerStory, Call]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find what was called: by the number that the answer brought."""
        told = {
            (server.address, call.number): (server, call)
            for server in self.servers
            for call in server.calls
            if server.address and call.number
        }
        calls = [span for _, job in self.jobs for span in job.spans if span.kind is SpanKind.CALL]
        for span in calls:
            if (other := told.get((span.address, span.call))) is not None:
                self._other_side[id(span)] = other
                del told[span.address, span.call]
        # A call that broke off brought none. They failed in the same order at both ends.
        broken = [key for key, (_, call) in told.items() if call.error is not None]
        for span in calls:
            key = next((key for key in broken if key[0] == span.address), None)
            if span.error is not None and not span.call and key is not None:
                self._other_side[id(span)] = told[key]
                broken.remove(key)

    @property
    def found(self) -> bool:
        """Whether any server remembers the request."""
        return any(server.calls for server in self.servers)

    @property
    def jobs(self) -> tuple[tuple[ServerStory, Call], ...]:
        """Its jobs, with the orchestrator of each; several, where a client tried again."""
        return tuple((server, call) for server in self.servers for call in server.calls if call.is_job)

    def called(self, span: Span) -> tuple[ServerStory, Call] | None:
        """The other side of a span of kind CALL: what the replica says of it; None where it does not say it."""
        return self._other_side.get(id(span))

    @property
    def silent(self) -> Iterator[ServerStory]:
        """Servers that took part, or were asked, and do not tell of it."""
        return (server for server in self.servers if server.error is not None or not server.calls)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `sluiceway explain --json`."""
        return {"request_id": self.request_id, "servers": [_server(server) for server in self.servers]}


def _server(server: ServerStory) -> dict[str, Any]:
    plain: dict[str, Any] = {"server": server.server, "instance": server.instance, "address": server.address}
    if server.error is not None:
        return plain | {"error": error_to_dict(server.error)}
    return plain | {"remembers_ms": _round(server.remembers_ms), "calls": [_call(call) for call in server.calls]}


def _call(call: Call) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "method": call.method,
        "number": call.number,
        "ago_ms": _round(call.ago_ms),
        "duration_ms": _round(call.duration_ms),
        "running": call.running,
    }
    if call.is_job:
        plain |= {"job_id": call.job_id, "pipeline": call.pipeline, "before_ms": _round(call.before_ms)}
        plain["sources"] = [
            {"source": source.source, "duration_ms": _round(source.duration_ms)} | _why(source.error)
            for source in call.sources
        ]
    if call.spans_left_out:
        plain["spans_left_out"] = call.spans_left_out
    return plain | _why(call.error) | {"spans": [_span(span) for span in call.spans]}


def _span(span: Span) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "kind": span.kind.value,
        "start_ms": _round(span.start_ms),
        "duration_ms": _round(span.duration_ms),
    }
    for name in ("source", "step", "stage", "address", "call", "items", "failed_items"):
        if value := getattr(span, name):
            plain[name] = value
    if span.timings is not None:
        timings = span.timings
        plain["said_ms"] = {
            "queue": _round(timings.queue_ms),
            "compute": _round(timings.compute_ms),
            "decode": _round(timings.decode_ms),
            "total": _round(timings.total_ms),
        }
    if span.batch is not None:
        batch = span.batch
        plain["batch"] = {
            "id": batch.id,
            "worker": batch.worker,
            "items": batch.items,
            "behind_ms": _round(batch.behind_ms),
            "compute_ms": _round(batch.compute_ms),
            "other_requests": list(batch.other_requests),
            "other_request_count": batch.other_request_count,
        } | ({"fault": batch.fault} if batch.fault else {})
    return plain | _why(span.error)


def _why(error: SluicewayError | None) -> dict[str, Any]:
    if error is None:
        return {}
    story = {"story": error.metadata["story"]} if "story" in error.metadata else {}
    return {"error": error_to_dict(error) | story}


def _round(value: float) -> float:
    return round(value, 3)
