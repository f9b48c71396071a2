"""How a job goes through the pipeline: each source by itself, each step as soon as the one before it is done."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Internal, SluicewayError

from sluiceway_orchestrator.admission import Admission
from sluiceway_orchestrator.events import (
    Crops,
    Detected,
    Event,
    ImageReady,
    JobDone,
    Model,
    Recognized,
    SourceDone,
    SourceFailed,
    StageTimings,
)
from sluiceway_orchestrator.fetch.fetcher import Fetched
from sluiceway_orchestrator.gate import Gate
from sluiceway_orchestrator.job import Job, Source
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.reading_order import reading_order
from sluiceway_orchestrator.stages.stage import Ticket

__all__ = ["Detector", "Flow", "FlowStatistics", "Recognized", "Recognizer", "SourceFetcher"]

log = logging.getLogger(__name__)


class SourceFetcher(Protocol):
    """Brings the image of a source."""

    async def fetch(self, source: Source, deadline: Deadline) -> Fetched:
        """Bring it; whoever gets it releases it. Raises SluicewayError."""
        ...


class Detector(Protocol):
    """The detection stage."""

    async def detect(self, image: bytes, request_tail: bytes, ticket: Ticket) -> Detected:
        """Detect one image."""
        ...


class Answer(Protocol):
    """Some recognitions, with what the stage said beside them."""

    @property
    def recognized(self) -> Recognized:
        """What was read."""
        ...

    @property
    def model(self) -> Model | None:
        """Who read it; None for failures."""
        ...

    @property
    def timings(self) -> StageTimings:
        """How long it took."""
        ...


class Recognizer(Protocol):
    """The recognition stage."""

    def recognize(self, crops: Crops, request_head: bytes, ticket: Ticket) -> AsyncGenerator[Answer, None]:
        """Answer each crop exactly once."""
        ...


@dataclass(slots=True)
class FlowStatistics:
    """What has happened so far; failed sources by the reason of their error."""

    sources_done: int = 0
    sources_failed: Counter[str] = field(default_factory=Counter)
    regions: int = 0
    regions_failed: int = 0


@dataclass(slots=True)
class _Reading:
    """What recognition has said about one source so far."""

    models: dict[str, Model] = field(default_factory=dict)
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """One source on its way, and where its events go."""

    job: Job
    source: Source
    outbox: Outbox

    async def tell(self, event: Event) -> None:
        await self.outbox.put(self.job.job_id, self.source.source_id, event)


class Flow:
    """Runs jobs. Holds no state of a job once its `run` has ended."""

    def __init__(
        self,
        *,
        fetcher: SourceFetcher,
        detector: Detector,
        recognizer: Recognizer,
        crop_fields: Callable[[Deadline], Awaitable[bytes]],
        recognize_head: Callable[[bytes, str], bytes],
        gate: Gate,
        max_crops_per_call: int,
        saturated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fetcher = fetcher
        self._detector = detector
        self._recognizer = recognizer
        self._crop_fields = crop_fields
        self._recognize_head = recognize_head
        self._gate = gate
        self._max_crops = max_crops_per_call
        self._saturated = saturated
        self._admission = Admission()
        self.statistics = FlowStatistics()

    def admit(self, job: Job) -> None:
        """Refuse a job that could not be done in time; for calls that would rather hear that than wait.

        Raises:
            QueueFull: with the time after which to try again.
        """
        now_s = monotonic()
        self._admission.check(job.client, job.priority, job.deadline.remaining_s(), now_s, busy=self._saturated())

    async def run(self, job: Job, outbox: Outbox) -> None:
        """Run a job to its end and put its events into the outbox, the last one `JobDone`.

        Cancelling this cancels everything that runs for the job, before it returns.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._counted(_Run(job, source, outbox))) for source in job.sources]
        succeeded = sum(task.result() for task in tasks)
        # The log line has the request id as well, which the stages log too.
        log.debug("job %r: %d sources done, %d failed", job.job_id, succeeded, len(tasks) - succeeded)
        await outbox.put(job.job_id, "", JobDone(succeeded, len(tasks) - succeeded))

    async def _counted(self, run: _Run) -> bool:
        job = run.job
        self._admission.enter(job.client, job.priority, 1)
        try:
            return await self._source(run)
        finally:
            self._admission.leave(job.client, job.priority, monotonic(), busy=self._saturated())

    async def _source(self, run: _Run) -> bool:
        """Run one source; returns whether it succeeded. Raises only cancellation."""
        job = run.job
        try:
            async with self._gate.slot(job.client, job.priority, job.deadline):
                await self._steps(run)
        except SluicewayError as error:
            failure = error
        except Exception:
            log.exception("job %r, request %s: a source failed", job.job_id, job.request_id)
            failure = Internal("internal error")
        else:
            self.statistics.sources_done += 1
            return True
        finally:
            run.outbox.forget(job.job_id, run.source.source_id)
        self.statistics.sources_failed[failure.reason] += 1
        await run.tell(SourceFailed(failure))
        return False

    async def _steps(self, run: _Run) -> None:
        job, source = run.job, run.source
        ticket = Ticket(job.client, job.priority, job.deadline, job.accepted_s, job.request_id)
        fetched = await self._fetcher.fetch(source, job.deadline)
        try:
            size_bytes = len(fetched.image)
            was_fetched = source.image is None
            ready = ImageReady(
                size_bytes,
                fetched.fetch_ms,
                fetched.metadata,
                fetched.metadata_errors,
                fetched.image if job.return_images and was_fetched else b"",
            )
            await run.tell(ready)
            tail = job.detect_fields
            if not job.detect_only:
                tail += await self._crop_fields(job.deadline)
            detected = await self._detector.detect(fetched.image, tail, ticket)
        finally:
            fetched.release()
        await run.tell(detected)
        started_s = monotonic()
        reading = _Reading()
        if detected.crops:
            await self._recognize(run, detected, ticket, reading)
        recognition = StageTimings(
            queue_ms=reading.queue_ms,
            compute_ms=reading.compute_ms,
            total_ms=(monotonic() - started_s) * 1000 if detected.crops else 0.0,
        )
        order = tuple(detected.ids[index] for index in reading_order(detected.boxes_xyxy_px))
        done = SourceDone(
            reading_order=order,
            fetch_ms=fetched.fetch_ms,
            detection=detected.timings,
            recognition=recognition,
            total_ms=(monotonic() - job.accepted_s) * 1000,
            models=(detected.model, *reading.models.values()),
            failed_recognitions=reading.failed,
        )
        await run.tell(done)

    async def _recognize(self, run: _Run, detected: Detected, ticket: Ticket, reading: _Reading) -> None:
        calls = [
            Crops(crops.model, crops.message, crops.spans[start : start + self._max_crops])
            for crops in detected.crops
            for start in range(0, len(crops.spans), self._max_crops)
        ]
        if len(calls) == 1:
            await self._recognize_some(run, calls[0], ticket, reading)
            return
        async with asyncio.TaskGroup() as group:
            for crops in calls:
                group.create_task(self._recognize_some(run, crops, ticket, reading))

    async def _recognize_some(self, run: _Run, crops: Crops, ticket: Ticket, reading: _Reading) -> None:
        head = self._recognize_head(run.job.recognize_fields, crops.model)
        # Closed here and not by the garbage collector, so that a cancelled source ends its call to the stage at once.
        async with aclosing(self._recognizer.recognize(crops, head, ticket)) as answers:
            async for answer in answers:
                if answer.model is not None:
                    reading.models[crops.model] = answer.model
                reading.queue_ms = max(reading.queue_ms, answer.timings.queue_ms)
                reading.compute_ms = max(reading.compute_ms, answer.timings.compute_ms)
                reading.failed += answer.recognized.failed
                self.statistics.regions += len(answer.recognized.ids)
                self.statistics.regions_failed += answer.recognized.failed
                await run.tell(answer.recognized)
