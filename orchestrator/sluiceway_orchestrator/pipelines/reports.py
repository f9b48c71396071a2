"""What there is to tell of each step of a source once it is finished."""

from __future__ import annotations

from collections.abc import Sequence

from sluiceway_runtime.clock import monotonic

from sluiceway_orchestrator.events import Model, StageTimings, StepReport
from sluiceway_orchestrator.plan import Step

__all__ = ["StepNotes", "reports"]


class StepNotes:
    """Notes on one step; of many answers the longest of each kind of time is kept."""

    __slots__ = (
        "_backlog_ms",
        "_batch_ms",
        "_begun_s",
        "_compute_ms",
        "_decode_ms",
        "_ended_s",
        "_models",
        "_queue_ms",
        "_transfer_ms",
        "failed",
    )

    def __init__(self) -> None:
        self._begun_s: float | None = None
        self._ended_s = 0.0
        self._queue_ms = self._compute_ms = self._decode_ms = 0.0
        self._batch_ms = self._backlog_ms = self._transfer_ms = 0.0
        self._models: dict[str, Model] = {}
        self.failed = 0

    @property
    def ran(self) -> bool:
        """Whether anything was asked for."""
        return self._begun_s is not None

    def begin(self) -> None:
        """A call goes out."""
        if self._begun_s is None:
            self._begun_s = self._ended_s = monotonic()

    def answered(self, timings: StageTimings, model: Model | None) -> None:
        """An answer came."""
        self._ended_s = monotonic()
        self._queue_ms = max(self._queue_ms, timings.queue_ms)
        self._compute_ms = max(self._compute_ms, timings.compute_ms)
        self._decode_ms = max(self._decode_ms, timings.decode_ms)
        self._batch_ms = max(self._batch_ms, timings.batch_ms)
        self._backlog_ms = max(self._backlog_ms, timings.backlog_ms)
        self._transfer_ms = max(self._transfer_ms, timings.transfer_ms)
        if model is not None and model.name not in self._models:
            self._models[model.name] = model

    def report(self, step: Step) -> StepReport:
        """All of it."""
        assert self._begun_s is not None
        timings = StageTimings(
            self._queue_ms,
            self._compute_ms,
            (self._ended_s - self._begun_s) * 1000,
            self._decode_ms,
            self._batch_ms,
            self._backlog_ms,
            self._transfer_ms,
        )
        return StepReport(step.name, timings, tuple(self._models.values()), self.failed)


def reports(steps: Sequence[Step], notes: Sequence[StepNotes]) -> tuple[StepReport, ...]:
    """Reports of the steps that ran, in the order of the pipeline."""
    return tuple(notes[step.index].report(step) for step in steps if notes[step.index].ran)
