"""Between the contract's messages and this stage's values."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, assert_never

from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption, SluicewayError, UnknownModel
from sluiceway_runtime.images.limits import ImageLimits, check_size
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.common.v1 import crop_pb2, model_pb2, value_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway_recognition.front import wire
from sluiceway_recognition.front.wire import EncodedCrop, RawCrop
from sluiceway_recognition.types import (
    MAX_HEIGHT_PX,
    MAX_NAME_CHARACTERS,
    MAX_WIDTH_PX,
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    Head,
    ModelFacts,
    PixelFormat,
    ResizeRule,
    TextAnswer,
)

__all__ = [
    "EncodedCrop",
    "RawCrop",
    "Request",
    "check_crops",
    "file_of",
    "model_description",
    "model_message",
    "pixel_format_of",
    "priority_of",
    "read_request",
    "recognition_bytes",
    "request_of",
    "top_k_of",
]

MAX_TOP_K = 1000
# Options of ordinary length are remembered.
SHORT_BYTES = 256
_FORMATS: dict[int, PixelFormat] = {
    crop_pb2.PIXEL_FORMAT_UNSPECIFIED: PixelFormat.BGR,
    crop_pb2.PIXEL_FORMAT_BGR: PixelFormat.BGR,
    crop_pb2.PIXEL_FORMAT_RGB: PixelFormat.RGB,
    crop_pb2.PIXEL_FORMAT_GRAY: PixelFormat.GRAY,
}
_FORMAT_MESSAGES = {PixelFormat.BGR: crop_pb2.PIXEL_FORMAT_BGR, PixelFormat.RGB: crop_pb2.PIXEL_FORMAT_RGB}
_RULES = {
    ResizeRule.FIT_HEIGHT: crop_pb2.RESIZE_RULE_FIT_HEIGHT,
    ResizeRule.STRETCH: crop_pb2.RESIZE_RULE_STRETCH,
    ResizeRule.COVER: crop_pb2.RESIZE_RULE_COVER,
}
_HEADS = {Head.TEXT: pb.HEAD_TEXT, Head.CLASSIFY: pb.HEAD_CLASSIFY, Head.EMBED: pb.HEAD_EMBED}
# PRIORITY_UNSPECIFIED is 0 and means NORMAL.
_PRIORITIES = {0: Priority.NORMAL, 1: Priority.INTERACTIVE, 2: Priority.NORMAL, 3: Priority.BULK}


def priority_of(value: int) -> Priority:
    """The priority class. Raises InvalidOption for a number that is none."""
    try:
        return _PRIORITIES[value]
    except KeyError:
        raise InvalidOption(f"unknown priority {value}", metadata={"option": "priority"}) from None


def top_k_of(options: pb.RecognizeOptions) -> int:
    """How many classes to name. Raises InvalidOption outside 1 to 1000."""
    if not options.HasField("top_k"):
        return 1
    if not 1 <= options.top_k <= MAX_TOP_K:
        raise InvalidOption(f"top_k must lie in 1 to {MAX_TOP_K}", metadata={"option": "top_k"})
    return int(options.top_k)


class Request(NamedTuple):
    """A request as it came; its crops have not been checked."""

    options: pb.RecognizeOptions
    priority: int
    crops: Sequence[RawCrop | EncodedCrop]


def read_request(data: bytes) -> Request:
    """Read a serialised `RecognizeRequest`; pixels and files become views into it where that is possible.

    Raises:
        DecodeError: it is none.
    """
    found = wire.read(data)
    if found is None:
        return request_of(pb.RecognizeRequest.FromString(data))
    head = _head(found.head) if len(found.head) <= SHORT_BYTES else pb.RecognizeRequest.FromString(found.head)
    return Request(head.options, head.priority, found.crops)


@lru_cache(maxsize=64)
def _head(data: bytes) -> pb.RecognizeRequest:
    """The request without its crops, which is only read and mostly what others sent, too."""
    return pb.RecognizeRequest.FromString(data)


def request_of(message: pb.RecognizeRequest) -> Request:
    """The request that a message holds."""
    return Request(message.options, message.priority, [_crop_of(crop) for crop in message.crops])


def _crop_of(crop: crop_pb2.Crop) -> RawCrop | EncodedCrop:
    content = crop.WhichOneof("content")
    if content == "raw":
        raw = crop.raw
        return RawCrop(crop.id, raw.height, raw.width, raw.format, raw.data, crop.rotation_degrees)
    return EncodedCrop(crop.id, crop.encoded if content == "encoded" else None)


def check_crops(request: Request, known: Sequence[str], max_crops: int) -> str:
    """Check what concerns the request as a whole, and find the model.

    Args:
        request: as it came.
        known: models that are served, the default first.
        max_crops: most crops in a request.

    Returns:
        The model that all its crops are for. What they were cut for, `Crop.spec`, plays no part.

    Raises:
        InvalidOption: too many crops, a negative id, or two crops with one id.
        UnknownModel: no such model.
    """
    crops = request.crops
    if len(crops) > max_crops:
        raise InvalidOption(
            f"{len(crops)} crops in one request", metadata={"option": "crops", "max_crops": str(max_crops)}
        )
    name = request.options.model or known[0]
    if name not in known:
        # No longer than a name may be: errors travel in the trailers, of which gRPC takes some kilobytes.
        shown = name[:MAX_NAME_CHARACTERS]
        raise UnknownModel(f"no model {shown} is served", metadata={"model": shown, "models": ", ".join(known)})
    ids = {crop.id for crop in crops}
    if len(ids) != len(crops) or min(ids, default=0) < 0:
        raise InvalidOption("crops must have distinct ids of 0 or greater", metadata={"option": "crops"})
    return name


def file_of(crop: EncodedCrop, limits: ImageLimits) -> bytes | memoryview:
    """The image file of a crop.

    Raises:
        InvalidImage: nothing is in it.
        ImageTooLarge: above the limit.
    """
    if crop.data is None:
        raise InvalidImage("the crop has neither raw pixels nor an encoded file")
    if not crop.data:
        raise InvalidImage("the crop's file is empty")
    check_size(crop.data, limits)
    return crop.data


def pixel_format_of(crop: RawCrop, max_px: int) -> PixelFormat:
    """Check a raw crop and find its format.

    Raises:
        InvalidImage: an unknown format or rotation, no pixels, or bytes that are not height x width x channels.
        ImageTooLarge: above the limits.
    """
    _, height, width, number, data, rotation = crop
    pixel_format = _FORMATS.get(number)
    if pixel_format is None:
        raise InvalidImage(f"unknown pixel format {number}")
    if rotation not in (0, 90, 180, 270):
        raise InvalidImage(f"a crop is turned by 0, 90, 180 or 270 degrees, not by {rotation}")
    if height < 1 or width < 1:
        raise InvalidImage(f"the crop has {height} x {width} pixels")
    if height > MAX_HEIGHT_PX or width > MAX_WIDTH_PX or height * width > max_px:
        raise ImageTooLarge(
            f"the crop has {height} x {width} pixels",
            metadata={"max_height": str(MAX_HEIGHT_PX), "max_width": str(MAX_WIDTH_PX), "max_px": str(max_px)},
        )
    expected = height * width * pixel_format.channels
    if len(data) != expected:
        raise InvalidImage(
            f"{len(data)} bytes are not {height} x {width} x {pixel_format.channels} pixels",
            metadata={"expected_bytes": str(expected), "bytes": str(len(data))},
        )
    return pixel_format


def recognition_bytes(crop_id: int, result: Answer | SluicewayError) -> bytes:
    """The answer for one crop, serialised as a field of the response."""
    if isinstance(result, TextAnswer):
        text, confidence, characters, confidences, rotation, words, _ = result
        if not (characters or rotation or words):
            return wire.text_alone(crop_id, text, confidence)
        each = zip(characters, confidences, strict=True)
        return wire.recognition(crop_id, wire.text(text, confidence, each, rotation, words))
    return pb.RecognizeResponse(recognitions=[_recognition(crop_id, result)]).SerializeToString()


def _recognition(crop_id: int, result: ClassAnswer | EmbeddingAnswer | SluicewayError) -> pb.Recognition:
    match result:
        case SluicewayError():
            return pb.Recognition(crop_id=crop_id, error=error_to_proto(result))
        case ClassAnswer():
            labels = (
                value_pb2.Label(class_id=index, class_name=name, confidence=p) for index, name, p in result.labels
            )
            return pb.Recognition(crop_id=crop_id, classification=value_pb2.Classification(labels=labels))
        case EmbeddingAnswer():
            return pb.Recognition(crop_id=crop_id, embedding=value_pb2.Embedding(values=array("f", result.vector)))
        case _:
            assert_never(result)


def model_message(facts: ModelFacts) -> model_pb2.Model:
    """The identity of a model."""
    return model_pb2.Model(name=facts.name, version=facts.version, weights_sha256=facts.weights_sha256)


def model_description(facts: ModelFacts) -> pb.ModelDescription:
    """What `Describe` says of a model."""
    spec = facts.crop_spec
    return pb.ModelDescription(
        model=model_message(facts),
        head=_HEADS[facts.head],
        crop_spec=crop_pb2.CropSpec(
            name=facts.name,
            height=spec.height,
            max_width=spec.max_width,
            format=_FORMAT_MESSAGES[spec.format],
            resize_rule=_RULES[spec.resize_rule],
            classes=spec.classes,
            turn_ratio=spec.turn_ratio,
            align_points=spec.align_points,
        ),
        labels=facts.labels,
        embedding_size=facts.embedding_size,
        backend=facts.backend,
        precision=facts.precision,
        device=facts.device,
        upright=facts.upright,
    )
