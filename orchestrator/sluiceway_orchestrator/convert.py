"""Between messages of the contract and the values that the flow works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from time import monotonic

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.events import (
    Detected,
    ImageReady,
    JobDone,
    Model,
    Recognized,
    SourceDone,
    SourceFailed,
    StageTimings,
)
from sluiceway_orchestrator.job import ApiCall, Job, Source
from sluiceway_orchestrator.outbox import Addressed
from sluiceway_orchestrator.plan import Recognizer, assign

__all__ = ["crop_fields", "event_to_proto", "job_from_proto", "recognize_head"]

_MAX_JOB_ID = 128
_MAX_SOURCE_ID = 256
# A call may take two bytes of a message, and has an object and a task of its own here.
_MAX_METADATA_CALLS = 64
_PRIORITIES = {
    model_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    model_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    model_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    model_pb2.PRIORITY_BULK: Priority.BULK,
}


def job_from_proto(
    request: pipeline_pb2.ProcessRequest,
    *,
    client: Hashable,
    deadline: Deadline,
    request_id: str,
    config: OrchestratorConfig,
) -> Job:
    """Check a job and take it apart.

    Raises:
        InvalidOption: the job as a whole cannot run.
    """
    if len(request.job_id) > _MAX_JOB_ID:
        raise InvalidOption(f"job_id: at most {_MAX_JOB_ID} characters")
    if not request.sources:
        raise InvalidOption("sources: a job needs at least one")
    if len(request.sources) > config.max_sources:
        raise InvalidOption(
            f"sources: {len(request.sources)} are more than the limit",
            metadata={"max_sources": str(config.max_sources)},
        )
    sources = tuple(_source(index, source) for index, source in enumerate(request.sources))
    repeated = [name for name, count in Counter(source.source_id for source in sources).items() if count > 1]
    if repeated:
        raise InvalidOption("source_id: must be unique within the job", metadata={"source_id": repeated[0]})
    options = request.options
    priority = _PRIORITIES.get(options.priority)
    if priority is None:
        raise InvalidOption(f"options.priority: {options.priority} is unknown")
    _check(options.detect, options.recognize)
    recognize = recognition_pb2.RecognizeOptions()
    recognize.CopyFrom(options.recognize)
    recognize.ClearField("model")
    # An unset priority goes on as unset, and means NORMAL there as well.
    return Job(
        job_id=request.job_id or request_id,
        sources=sources,
        client=client,
        priority=priority,
        deadline=deadline,
        request_id=request_id,
        accepted_s=monotonic(),
        detect_fields=detection_pb2.DetectRequest(
            options=options.detect, priority=options.priority
        ).SerializeToString(),
        recognize_fields=recognition_pb2.RecognizeRequest(
            options=recognize, priority=options.priority
        ).SerializeToString(),
        return_images=options.return_images,
        detect_only=options.detect_only,
    )


def crop_fields(
    routes: Mapping[str, str | Sequence[str]],
    detection: detection_pb2.DescribeResponse,
    recognition: recognition_pb2.DescribeResponse,
) -> bytes:
    """The fields `crop_specs` of a `DetectRequest`, serialised.

    Raises:
        UnknownModel: a route names a model that the stage does not serve.
    """
    specs = {entry.model.name: entry.crop_spec for entry in recognition.models}
    recognizers = [Recognizer(name, tuple(spec.classes)) for name, spec in specs.items()]
    request = detection_pb2.DetectRequest()
    for assignment in assign(routes, detection.classes, recognizers):
        spec = crop_pb2.CropSpec()
        spec.CopyFrom(specs[assignment.model])
        spec.model = assignment.model
        spec.classes[:] = assignment.classes
        request.crop_specs.append(spec)
    return request.SerializeToString()


def recognize_head(fields: bytes, model: str) -> bytes:
    """The fields of a `RecognizeRequest` before the crops: a job's options and the model.

    Serialised messages that follow each other are merged by whoever parses them, the submessage `options` included.
    """
    return fields + _model_field(model)


@lru_cache(maxsize=256)
def _model_field(model: str) -> bytes:
    options = recognition_pb2.RecognizeOptions(model=model)
    return recognition_pb2.RecognizeRequest(options=options).SerializeToString()


def event_to_proto(addressed: Addressed) -> pipeline_pb2.ProcessResponse:
    """The message for one event."""
    response = pipeline_pb2.ProcessResponse(job_id=addressed.job_id, source_id=addressed.source_id)
    match addressed.event:
        case ImageReady() as event:
            ready = response.image_ready
            ready.size_bytes = event.size_bytes
            ready.fetch_ms = event.fetch_ms
            if event.metadata:
                ready.metadata.update(event.metadata)
            for name, error in event.metadata_errors.items():
                ready.metadata_errors[name].CopyFrom(error_to_proto(error))
            if event.image:
                ready.image = event.image
        case Detected() as event:
            found = response.detections
            found.width = event.width
            found.height = event.height
            found.detections.MergeFrom(event.opaque)
            found.recognizing.extend(dict.fromkeys(span.crop_id for crops in event.crops for span in crops.spans))
        case Recognized() as event:
            response.recognitions.recognitions.extend(event.opaque)
            response.recognitions.model = event.model
        case SourceDone() as event:
            done = response.done
            done.reading_order.extend(event.reading_order)
            done.fetch_ms = event.fetch_ms
            done.total_ms = event.total_ms
            done.failed_recognitions = event.failed_recognitions
            done.detection.CopyFrom(_timings(event.detection))
            done.recognition.CopyFrom(_timings(event.recognition))
            done.models.extend(_model(model) for model in event.models)
        case SourceFailed() as event:
            response.failed.error.CopyFrom(error_to_proto(event.error))
        case JobDone() as event:
            response.job_done.SetInParent()
            response.job_done.succeeded = event.succeeded
            response.job_done.failed = event.failed
            if event.error is not None:
                response.job_done.error.CopyFrom(error_to_proto(event.error))
    return response


def _source(index: int, source: pipeline_pb2.Source) -> Source:
    source_id = source.source_id or str(index)
    if len(source_id) > _MAX_SOURCE_ID:
        raise InvalidOption(f"source_id: at most {_MAX_SOURCE_ID} characters")
    if len(source.metadata_calls) > _MAX_METADATA_CALLS:
        raise InvalidOption(f"metadata_calls: at most {_MAX_METADATA_CALLS} for a source")
    kind = source.WhichOneof("content")
    return Source(
        source_id,
        image=source.image if kind == "image" else None,
        url=source.url if kind == "url" else None,
        api_call=_api_call(source.api_call) if kind == "api_call" else None,
        metadata_calls=tuple(_api_call(call) for call in source.metadata_calls),
    )


def _api_call(call: pipeline_pb2.ApiCall) -> ApiCall:
    return ApiCall(call.api, dict(call.params))


def _check(detect: detection_pb2.DetectOptions, recognize: recognition_pb2.RecognizeOptions) -> None:
    """What the contract itself says of options; what depends on the model is the stage's to judge."""
    for name in ("confidence", "iou"):
        if detect.HasField(name) and not 0 < getattr(detect, name) <= 1:
            raise InvalidOption(f"options.detect.{name}: must be above 0 and at most 1")
    if detect.HasField("max_detections") and not 1 <= detect.max_detections <= 10_000:
        raise InvalidOption("options.detect.max_detections: must be 1..10000")
    if detect.HasField("image_size") and (detect.image_size == 0 or detect.image_size % 32):
        raise InvalidOption("options.detect.image_size: must be a multiple of 32")
    if recognize.HasField("top_k") and not 1 <= recognize.top_k <= 1000:
        raise InvalidOption("options.recognize.top_k: must be 1..1000")


def _timings(timings: StageTimings) -> model_pb2.StageTimings:
    return model_pb2.StageTimings(
        queue_ms=timings.queue_ms,
        compute_ms=timings.compute_ms,
        total_ms=timings.total_ms,
        decode_ms=timings.decode_ms,
    )


def _model(model: Model) -> model_pb2.Model:
    return model_pb2.Model(name=model.name, version=model.version, weights_sha256=model.weights_sha256)
