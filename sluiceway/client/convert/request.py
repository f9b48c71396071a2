"""Jobs as they go on the wire, and what is said of them in metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from sluiceway.client.description import Description
from sluiceway.client.options import Options, Priority, StepOptions
from sluiceway.client.sources import ApiCall, LoadedSource
from sluiceway.common.v1 import model_pb2
from sluiceway.errors import ImageTooLarge, InvalidOption
from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["JobRequest", "call_metadata", "size_fault", "to_request"]

JobRequest: TypeAlias = pipeline_pb2.ProcessRequest
Built = TypeVar("Built", bound=Message)

REQUEST_BYTES_KEY = "sluiceway-request-bytes"
PRIORITY_KEY = "sluiceway-priority"
_PRIORITIES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}
_TEXT_LAYERS = {
    None: model_pb2.TEXT_LAYER_UNSPECIFIED,
    "ignore": model_pb2.TEXT_LAYER_IGNORE,
    "prefer": model_pb2.TEXT_LAYER_PREFER,
}
# The wire holds numbers below these as well, which mean nothing.
_COUNTS = frozenset({"max_detections", "image_size", "top_k"})
# What the stream puts around a job: a tag and a length.
_ENVELOPE_BYTES = 16


def to_request(
    sources: Sequence[LoadedSource],
    options: Options,
    *,
    pipeline: str | None = None,
    job_id: str = "",
    timeout_s: float | None = None,
) -> JobRequest:
    """Build one job. The ids of its sources are their positions.

    Args:
        sources: what to process.
        options: how.
        pipeline: None for the server's default.
        job_id: empty lets the server choose.
        timeout_s: of the job itself, for streams; a call of its own has a deadline.

    Raises:
        InvalidOption: an option or a source has a value that no message can hold or that means nothing.
    """
    request = JobRequest(
        job_id=job_id,
        sources=[_to_source(str(index), source) for index, source in enumerate(sources)],
        options=_to_options(options),
    )
    if pipeline:
        request.MergeFrom(_build(JobRequest, pipeline=pipeline))
    if timeout_s is not None:
        request.timeout.CopyFrom(_to_duration(timeout_s))
    return request


def call_metadata(options: Options, request_bytes: int | None) -> tuple[tuple[str, str], ...]:
    """What a server wants to know before it reads: how much there is to read, and how urgent it is.

    Args:
        options: of the job; a priority that is none is left out, as no job with it is sent.
        request_bytes: size of the serialised request; None where it is not known.
    """
    metadata = []
    if request_bytes is not None:
        metadata.append((REQUEST_BYTES_KEY, str(request_bytes)))
    if options.priority in _PRIORITIES:  # a word of the same letters, too
        metadata.append((PRIORITY_KEY, str(options.priority)))
    return tuple(metadata)


def _to_duration(timeout_s: float) -> Duration:
    # Beyond a year no server goes, and at some point no message.
    if not 0 < timeout_s <= 366 * 86_400:
        raise InvalidOption(f"timeout_s must be above 0 and at most a year, not {timeout_s!r}")
    duration = Duration()
    # Never 0: what is shorter than a nanosecond is over as well.
    duration.FromNanoseconds(math.ceil(timeout_s * 1e9))
    return duration


def _to_source(source_id: str, source: LoadedSource) -> pipeline_pb2.Source:
    message = pipeline_pb2.Source(source_id=source_id)
    if source.image is not None:
        message.image = source.image
    try:
        if source.url is not None:
            message.url = source.url
        if source.call is not None:
            message.api_call.CopyFrom(_to_call(source.call))
        message.calls.extend(_to_call(call) for call in source.calls)
        message.params.update(source.params)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"{source.name!r} cannot be sent: {error}") from error
    return message


def _to_call(call: ApiCall) -> pipeline_pb2.ApiCall:
    return pipeline_pb2.ApiCall(api=call.api, params=dict(call.params), name=call.name)


def _to_options(options: Options) -> pipeline_pb2.ProcessOptions:
    if options.priority not in _PRIORITIES:
        raise InvalidOption(f"priority cannot be {options.priority!r}")
    if options.text_layer not in _TEXT_LAYERS:
        raise InvalidOption(f"text_layer cannot be {options.text_layer!r}")
    return pipeline_pb2.ProcessOptions(
        detection=_detection(options),
        recognition=_recognition(options),
        priority=_PRIORITIES[options.priority],
        return_images=options.return_images,
        detect_only=options.detect_only,
        steps=_steps(options.steps),
        text_layer=_TEXT_LAYERS[options.text_layer],
    )


def _steps(steps: Mapping[str, StepOptions]) -> dict[str, pipeline_pb2.StepOptions]:
    found = {}
    for name, options in steps.items():
        try:
            detection, recognition = _detection(options), _recognition(options)
        except InvalidOption as error:
            raise InvalidOption(f"step {name}: {error}") from error
        # Only what was set: options of the wrong kind are refused by the server.
        found[name] = pipeline_pb2.StepOptions(
            detection=detection if detection.ByteSize() else None,
            recognition=recognition if recognition.ByteSize() else None,
        )
    return found


def _detection(options: Options | StepOptions) -> pipeline_pb2.DetectionOptions:
    return _build(
        pipeline_pb2.DetectionOptions,
        confidence=options.confidence,
        iou=options.iou,
        classes=options.classes,
        max_detections=options.max_detections,
        image_size=options.image_size,
        scale=None if options.scale is None else str(options.scale),
        class_agnostic=options.class_agnostic,
    )


def _recognition(options: Options | StepOptions) -> pipeline_pb2.RecognitionOptions:
    return _build(
        pipeline_pb2.RecognitionOptions, characters=options.characters, top_k=options.top_k, words=options.words
    )


def _build(kind: type[Built], **fields: Any) -> Built:
    """Fill a message field by field, so that the one that does not fit can be named: protobuf does not."""
    message = kind()
    for name, value in fields.items():
        if name in _COUNTS and isinstance(value, int) and value < 1:
            raise InvalidOption(f"{name} must be at least 1, not {value}")
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
