"""From events of the executor to messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway_orchestrator.events import (
    JobDone,
    JobRefused,
    Model,
    Page,
    RegionsFound,
    SourceDone,
    SourceFailed,
    SourceReady,
    StageTimings,
    StepReport,
    Subject,
    ValuesRead,
)
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["event_to_proto"]

_SUBJECTS: Mapping[Subject, pipeline_pb2.Subject.ValueType] = {
    Subject.REGION: pipeline_pb2.SUBJECT_REGION,
    Subject.PAGE: pipeline_pb2.SUBJECT_PAGE,
    Subject.SOURCE: pipeline_pb2.SUBJECT_SOURCE,
}


def event_to_proto(addressed: Addressed) -> pipeline_pb2.ProcessResponse:
    """The message for one event."""
    response = pipeline_pb2.ProcessResponse(job_id=addressed.job_id, source_id=addressed.source_id)
    match addressed.event:
        case SourceReady() as event:
            ready = response.source_ready
            ready.size_bytes = event.size_bytes
            ready.fetch_ms = event.fetch_ms
            for name, values in event.values.items():
                ready.values[name].update(values)
            for name, error in event.call_errors.items():
                ready.call_errors[name].CopyFrom(error_to_proto(error))
            if event.image:
                ready.image = bytes(event.image)
        case RegionsFound() as event:
            found = response.regions
            found.CopyFrom(event.regions)
            found.step = event.step
            _set_page(found.page, event.page)
            found.recognizing.extend(event.recognizing)
        case ValuesRead() as event:
            said = response.values
            said.CopyFrom(event.values)
            said.step, said.model, said.page = event.step, event.model, event.page
            said.subject = _SUBJECTS[event.subject]
        case SourceDone() as event:
            done = response.done
            done.reading_order.extend(event.reading_order)
            done.fetch_ms = event.fetch_ms
            done.total_ms = event.total_ms
            for report in event.steps:
                _set_report(done.steps.add(), report)
            done.MergeFromString(b"".join([*map(_line, event.lines), *map(_block, event.blocks)]))
            if event.line_pages:
                for told, page in zip(done.lines, event.line_pages, strict=True):
                    told.page = page
                for whole in done.blocks:
                    whole.page = event.line_pages[whole.lines[0]]
            done.notices.extend(event.notices)
        case SourceFailed() as event:
            response.failed.error.CopyFrom(error_to_proto(event.error))
        case JobDone() as event:
            response.job_done.SetInParent()
            response.job_done.succeeded = event.succeeded
            response.job_done.failed = event.failed
        case JobRefused() as event:
            response.job_refused.error.CopyFrom(error_to_proto(event.error))
    return response


# Lines and blocks as they stand in `SourceDone`. An image has as many as it has lines of text, and most are of one
# region or line each: what stands for those is made once.


def _line(region_ids: Sequence[int]) -> bytes:
    return _line_of_one(region_ids[0]) if len(region_ids) == 1 else _line_of(region_ids)


def _block(lines: Sequence[int]) -> bytes:
    return _block_of_one(lines[0]) if len(lines) == 1 else _block_of(lines)


@lru_cache(1024)
def _line_of_one(region_id: int) -> bytes:
    return _line_of((region_id,))


@lru_cache(1024)
def _block_of_one(line: int) -> bytes:
    return _block_of((line,))


def _line_of(region_ids: Sequence[int]) -> bytes:
    return pipeline_pb2.SourceDone(lines=[pipeline_pb2.Line(region_ids=region_ids)]).SerializeToString()


def _block_of(lines: Sequence[int]) -> bytes:
    return pipeline_pb2.SourceDone(blocks=[pipeline_pb2.Block(lines=lines)]).SerializeToString()


def _set_page(message: pipeline_pb2.Page, page: Page) -> None:
    message.index, message.width, message.height = page.index, page.width, page.height
    message.rotation_degrees = page.rotation_degrees


def _set_report(message: pipeline_pb2.StepReport, report: StepReport) -> None:
    message.step, message.failed = report.step, report.failed
    _set_timings(message.timings, report.timings)
    for model in report.models:
        message.models.append(_model(model))


def _set_timings(message: model_pb2.StageTimings, timings: StageTimings) -> None:
    message.queue_ms, message.compute_ms = timings.queue_ms, timings.compute_ms
    message.total_ms, message.decode_ms = timings.total_ms, timings.decode_ms


def _model(model: Model) -> model_pb2.Model:
    return model_pb2.Model(name=model.name, version=model.version, weights_sha256=model.weights_sha256)
