"""Between the messages on the wire and this library's own types; only this and `connection` see the stubs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sluiceway.client import events
from sluiceway.client.description import Api, Description, Endpoint, ModelInfo, Stage
from sluiceway.client.options import Options, Priority
from sluiceway.client.results import Box, Character, Label, Model, Reading, Region, StageTimings, Timings
from sluiceway.client.sources import LoadedSource
from sluiceway.common.v1 import error_pb2, geometry_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.errors import ImageTooLarge, InvalidOption, ServerFault, SluicewayError, make_error
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

__all__ = [
    "JobRequest",
    "error_from_rpc",
    "from_describe",
    "from_response",
    "size_fault",
    "to_request",
]

JobRequest: TypeAlias = pipeline_pb2.ProcessRequest
Built = TypeVar("Built", bound=Message)

DETAILS_KEY = "grpc-status-details-bin"
_PRIORITIES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# What gRPC itself says where a stream ends while a message is being written: the server's own word is lost by then.
_WRITE_FAILED = "Internal error from Core"
# What gRPC says of messages above its limit, on either side; a busy server's refusals carry details of their own.
_TOO_LARGE = "message larger than max"
# What the stream puts around a job: a tag and a length.
_ENVELOPE_BYTES = 16


def to_request(sources: Sequence[LoadedSource], options: Options, job_id: str = "") -> JobRequest:
    """Build one job. The ids of its sources are their positions.

    Raises:
        InvalidOption: an option or a source has a value that no message can hold, such as a negative count.
    """
    return JobRequest(
        job_id=job_id,
        sources=[_to_source(str(index), source) for index, source in enumerate(sources)],
        options=_to_options(options),
    )


def _to_source(source_id: str, source: LoadedSource) -> pipeline_pb2.Source:
    if source.image is not None:
        return pipeline_pb2.Source(source_id=source_id, image=source.image)
    try:
        if source.url is not None:
            return pipeline_pb2.Source(source_id=source_id, url=source.url)
        assert source.call is not None
        call = pipeline_pb2.ApiCall(api=source.call.api, params=dict(source.call.params))
        return pipeline_pb2.Source(source_id=source_id, api_call=call)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"{source.name!r} cannot be sent: {error}") from error


def _to_options(options: Options) -> pipeline_pb2.ProcessOptions:
    if options.priority not in _PRIORITIES:
        raise InvalidOption(f"priority cannot be {options.priority!r}")
    return pipeline_pb2.ProcessOptions(
        detect=_build(
            detection_pb2.DetectOptions,
            confidence=options.confidence,
            iou=options.iou,
            classes=options.classes,
            max_detections=options.max_detections,
            image_size=options.image_size,
        ),
        recognize=_build(recognition_pb2.RecognizeOptions, characters=options.characters, top_k=options.top_k),
        priority=_PRIORITIES[options.priority],
        return_images=options.return_images,
        detect_only=options.detect_only,
    )


def _build(kind: type[Built], **fields: Any) -> Built:
    """Fill a message field by field, so that the one that does not fit can be named: protobuf does not."""
    message = kind()
    for name, value in fields.items():
        try:
            message.MergeFrom(kind(**{name: value}))
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"{name} cannot be {value!r}: {error}") from error
    return message


def size_fault(request: JobRequest, server: Description) -> ImageTooLarge | None:
    """Say which of the server's limits a job of one source exceeds; None if it fits.

    On a stream of many jobs this is more than thrift: a message above the server's limit ends the whole stream.
    """
    sizes = {
        "max_image_bytes": len(request.sources[0].image),
        "max_message_bytes": request.ByteSize() + _ENVELOPE_BYTES,
    }
    for name, size_bytes in sizes.items():
        limit_bytes: int = getattr(server, name)
        # 0: the server does not tell.
        if 0 < limit_bytes < size_bytes:
            return ImageTooLarge(
                f"the source has {size_bytes} bytes; the server's {name} is {limit_bytes}",
                metadata={name: str(limit_bytes)},
            )
    return None


def from_response(message: pipeline_pb2.ProcessResponse, names: Sequence[str]) -> events.Event | None:
    """Read one event.

    Args:
        message: from the server.
        names: of the sources, by position.

    Returns:
        The event; None for a kind that this client does not know, which the contract says to pass over.

    Raises:
        ServerFault: it is about a source that was not sent.
    """
    kind = message.WhichOneof("event")
    if kind == "job_done":
        done = message.job_done
        error = _error(done.error) if done.HasField("error") else None
        return events.JobDone(done.succeeded, done.failed, error)
    source = _source_name(message.source_id, names)
    match kind:
        case "image_ready":
            return _image_ready(source, message.image_ready)
        case "detections":
            found = message.detections
            regions = tuple(_region(item) for item in found.detections if item.geometry.WhichOneof("shape"))
            return events.Detected(source, found.width, found.height, regions, tuple(found.recognizing))
        case "recognitions":
            model = message.recognitions.model
            readings = {item.crop_id: _reading(item, model) for item in message.recognitions.recognitions}
            return events.Recognized(source, readings)
        case "done":
            return _source_done(source, message.done)
        case "failed":
            return events.SourceFailed(source, _error(message.failed.error))
    return None


def _source_name(source_id: str, names: Sequence[str]) -> str:
    if not source_id:
        return ""
    # Ids are positions; anything else is not what `to_request` sent.
    if source_id.isascii() and source_id.isdecimal() and len(source_id) < 10 and int(source_id) < len(names):
        return names[int(source_id)]
    raise ServerFault("the server answered about a source that was not sent")


def _image_ready(source: str, message: pipeline_pb2.ImageReady) -> events.ImageReady:
    return events.ImageReady(
        source,
        message.size_bytes,
        message.fetch_ms,
        dict(message.metadata),
        {name: _error(error) for name, error in message.metadata_errors.items()},
        message.image or None,
    )


def _source_done(source: str, message: pipeline_pb2.SourceDone) -> events.SourceDone:
    timings = Timings(
        message.fetch_ms, _stage_timings(message.detection), _stage_timings(message.recognition), message.total_ms
    )
    models = tuple(_model(model) for model in message.models)
    return events.SourceDone(source, tuple(message.reading_order), timings, models, message.failed_recognitions)


def _region(message: detection_pb2.Detection) -> Region:
    outline = _outline(message.geometry)
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    box = Box(min(xs), min(ys), max(xs), max(ys))
    return Region(message.id, box, message.class_name, message.class_id, message.confidence, outline)


def _outline(geometry: geometry_pb2.Geometry) -> tuple[tuple[float, float], ...]:
    match geometry.WhichOneof("shape"):
        case "box":
            box = geometry.box
            return ((box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1))
        case "rotated_box":
            return _turned(geometry.rotated_box)
        case _:
            return tuple((point.x, point.y) for point in geometry.polygon.points)


def _turned(box: geometry_pb2.RotatedBox) -> tuple[tuple[float, float], ...]:
    """Corners of a turned box, clockwise from the one that is top left at angle 0 (y grows downwards)."""
    angle = math.radians(box.angle_degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    halves = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = ((sx * box.width / 2, sy * box.height / 2) for sx, sy in halves)
    return tuple((box.center.x + dx * cos - dy * sin, box.center.y + dx * sin + dy * cos) for dx, dy in offsets)


def _reading(message: recognition_pb2.Recognition, model: str) -> Reading:
    match message.WhichOneof("result"):
        case "text":
            characters = tuple(Character(item.text, item.confidence) for item in message.text.characters)
            return Reading(model, message.text.text, message.text.confidence, characters)
        case "classification":
            labels = tuple(
                Label(item.class_id, item.class_name, item.confidence) for item in message.classification.labels
            )
            return Reading(model, confidence=labels[0].confidence if labels else 0.0, labels=labels)
        case "embedding":
            return Reading(model, embedding=tuple(message.embedding.values))
        case "error":
            return Reading(model, error=_error(message.error))
        case _:
            # A kind of result newer than this client: the region stands, without a reading of a known kind.
            return Reading(model)


def _stage_timings(message: model_pb2.StageTimings) -> StageTimings:
    return StageTimings(message.queue_ms, message.compute_ms, message.total_ms, message.decode_ms)


def _model(message: model_pb2.Model) -> Model:
    return Model(message.name, message.version, message.weights_sha256)


def _error(message: error_pb2.Error) -> SluicewayError:
    retry_after_s = message.retry_after_ms / 1000 if message.retry_after_ms else None
    code = _CODE_NAMES.get(message.code, "UNKNOWN")
    return make_error(
        code, message.reason, message.message, metadata=dict(message.metadata), retry_after_s=retry_after_s
    )


def error_from_rpc(error: grpc.aio.AioRpcError, address: str, *, closed: bool = False) -> SluicewayError:
    """Read why a call ended, from `google.rpc.Status` in its trailers.

    Args:
        error: what the call raised.
        address: named where the server could not be reached at all.
        closed: whether this side has closed the connection.
    """
    code, text = error.code().name, error.details() or ""
    details = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    if not isinstance(details, bytes):
        if code == "CANCELLED" and not closed:
            # Nobody here cancelled it: gRPC says so of calls that reach a server in the moment in which it stops.
            code, text = "UNAVAILABLE", "it stopped"
        elif code == "INTERNAL" and text == _WRITE_FAILED:
            code, text = "UNAVAILABLE", "it ended the stream"
        elif code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text.lower():
            return ImageTooLarge(text)
        if code == "UNAVAILABLE":
            text = f"cannot reach {address}: {text}"
        return make_error(code, "", text or code)
    reason, metadata, retry_after_s = _details(details)
    return make_error(code, reason, text, metadata=metadata, retry_after_s=retry_after_s)


def _details(data: bytes) -> tuple[str, Mapping[str, str], float | None]:
    reason, metadata, retry_after_s = "", {}, None
    for detail in status_pb2.Status.FromString(data).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, metadata, retry_after_s


def from_describe(message: pipeline_pb2.DescribeResponse) -> Description:
    """Read what a server says of itself."""
    models: list[ModelInfo] = []
    if message.HasField("detection"):
        found = message.detection
        models.append(
            ModelInfo(
                "detection", _model(found.model), found.backend, found.precision, found.device, tuple(found.classes)
            )
        )
    models += [
        ModelInfo(
            "recognition", _model(item.model), item.backend, item.precision, item.device, tuple(item.crop_spec.classes)
        )
        for item in message.recognition.models
    ]
    workers = {"detection": message.detection.workers, "recognition": message.recognition.workers}
    return Description(
        server_version=message.server_version,
        stages=tuple(_stage(stage, workers.get(stage.name, 0)) for stage in message.stages),
        models=tuple(models),
        routes={route.detection_class: route.model for route in message.routes},
        apis=tuple(Api(api.name, tuple(api.params)) for api in message.apis),
        url_sources=message.url_sources,
        max_sources=message.max_sources,
        max_image_bytes=message.max_image_bytes,
        max_message_bytes=message.max_message_bytes,
        default_deadline_s=message.default_deadline_ms / 1000,
        max_deadline_s=message.max_deadline_ms / 1000,
    )


def _stage(message: pipeline_pb2.Stage, workers: int) -> Stage:
    endpoints = tuple(
        Endpoint(item.address, item.ready, item.load.queued, item.load.running, item.load.capacity)
        for item in message.endpoints
    )
    return Stage(message.name, message.target, endpoints, workers)
