"""Sources as they end: how long each took, where its time went, and why it failed."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from sluiceway_runtime.errors import Internal
from sluiceway_runtime.metrics.instruments import Cell, Counters, Family, Histogram, Histograms
from sluiceway_runtime.server.status import REASONS
from sluiceway_runtime.watch.durations import Durations

from sluiceway_orchestrator.events import SourceDone, SourceFailed, StageTimings
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind

__all__ = ["DURATION", "FAILURES", "REGIONS", "STEP", "SourceMetrics"]

DURATION = Family(
    "sluiceway_source_duration_seconds",
    "histogram",
    "Images that ended, and how long each took from its acceptance to its last event: `done`, `failed`, or `cancelled` "
    "because its client had gone. Those that came over HTTP are among them.",
    ("pipeline", "outcome"),
)
FAILURES = Family(
    "sluiceway_source_failures",
    "counter",
    "Images that failed or were cancelled, by [reason](../protos/sluiceway/common/v1/error.proto).",
    ("pipeline", "reason"),
)
STEP = Family(
    "sluiceway_step_duration_seconds",
    "histogram",
    "Where the time of a step of an image that is done went; of several calls for one step the longest of each. "
    "`backlog`: in the orchestrator, waiting for a replica; `transfer`: on the way there and back; `queue`: in the "
    "stage, waiting for a worker; `decode`: reading the file; `compute`: the rest of the worker's batch; `batch`: with "
    "the worker but not computed, before its batch or until its answer left; `call`: all of the call of an API.",
    ("pipeline", "step", "phase"),
)
REGIONS = Family(
    "sluiceway_regions", "counter", "Values of regions that stages gave: `read`, or `failed`.", ("result",)
)
# A page of many words, or a stage that is away, takes longer than a call may.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
_PHASES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _StepTimes:
    """Of one step that a stage does."""

    __slots__ = ("_backlog", "_batch", "_compute", "_decode", "_queue", "_transfer")

    def __init__(self, family: Histograms, pipeline: str, step: Step) -> None:
        self._backlog = family.of(pipeline, step.name, "backlog")
        self._transfer = family.of(pipeline, step.name, "transfer")
        self._queue = family.of(pipeline, step.name, "queue")
        self._batch = family.of(pipeline, step.name, "batch")
        self._compute = family.of(pipeline, step.name, "compute")
        self._decode = family.of(pipeline, step.name, "decode")

    def observe(self, timings: StageTimings) -> None:
        compute_ms, decode_ms = timings.compute_ms, timings.decode_ms
        self._backlog.observe(timings.backlog_ms / 1000)
        self._transfer.observe(timings.transfer_ms / 1000)
        self._queue.observe(timings.queue_ms / 1000)
        self._batch.observe(timings.batch_ms / 1000)
        # A worker decodes as part of its batch, but where a device computes meanwhile.
        self._compute.observe((compute_ms - decode_ms if compute_ms > decode_ms else compute_ms) / 1000)
        if decode_ms:
            self._decode.observe(decode_ms / 1000)


class _CallTimes:
    """Of one step that calls an API."""

    __slots__ = ("_call",)

    def __init__(self, family: Histograms, pipeline: str, step: Step) -> None:
        self._call = family.of(pipeline, step.name, "call")

    def observe(self, timings: StageTimings) -> None:
        self._call.observe(timings.total_ms / 1000)


class _Own:
    """Of one pipeline: what is raised for each image, found once."""

    __slots__ = ("cancelled", "done", "failed", "failures", "steps")

    def __init__(self, pipeline: Pipeline, durations: Histograms, steps: Histograms, failures: Counters) -> None:
        self.done: Histogram = durations.of(pipeline.name, "done")
        self.failed: Histogram = durations.of(pipeline.name, "failed")
        self.cancelled: Histogram = durations.of(pipeline.name, "cancelled")
        self.failures: dict[str, Cell] = {reason: failures.of(pipeline.name, reason) for reason in REASONS}
        self.steps: dict[str, _StepTimes | _CallTimes] = {
            step.name: (_CallTimes if step.kind is StepKind.CALL else _StepTimes)(steps, pipeline.name, step)
            for step in pipeline.steps
        }


class SourceMetrics:
    """Takes note of sources; once a source, and of values once an answer."""

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self._durations = Histograms(DURATION, _SECONDS)
        self._steps = Histograms(STEP, _PHASES)
        self._failures = Counters(FAILURES)
        self._regions = Counters(REGIONS)
        # Of those that are done, finer than Prometheus has them: for whoever watches.
        self.durations = Durations()
        self._read, self._unread = self._regions.of("read"), self._regions.of("failed")
        self._own = {
            pipeline.name: _Own(pipeline, self._durations, self._steps, self._failures) for pipeline in pipelines
        }

    def register(self, registry: CollectorRegistry) -> None:
        """Have it shown."""
        for family in (self._durations, self._steps, self._failures, self._regions):
            registry.register(family)

    def ended(self, pipeline: str, last: SourceDone | SourceFailed | None, seconds: float) -> None:
        """A source has ended, with this event; with None it was cancelled."""
        own = self._own[pipeline]
        if isinstance(last, SourceDone):
            own.done.observe(seconds)
            self.durations.observe(seconds)
            for report in last.steps:
                own.steps[report.step].observe(report.timings)
        elif last is None:
            own.cancelled.observe(seconds)
            own.failures["CANCELLED"].value += 1
        else:
            own.failed.observe(seconds)
            # A caller of a user's own may have made up another.
            (own.failures.get(last.error.reason) or own.failures[Internal.reason]).value += 1

    def values_read(self, count: int, failed: int) -> None:
        """Stages gave so many values, of which so many are errors."""
        self._read.value += count - failed
        self._unread.value += failed

    def ended_otherwise(self) -> int:
        """How many sources failed, or were cancelled."""
        return sum(own.failed.count + own.cancelled.count for own in self._own.values())

    def failed(self, reason: str) -> int:
        """How many sources failed for this reason."""
        return int(sum(own.failures[reason].value for own in self._own.values()))
