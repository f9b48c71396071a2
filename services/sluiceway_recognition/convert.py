"""Between the contract's messages and this stage's values."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import assert_never

from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption, SluicewayError, UnknownModel
from sluiceway_runtime.pool import Payload, PoolStatistics, Priority
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway_recognition.types import (
    MAX_HEIGHT_PX,
    MAX_WIDTH_PX,
    Answer,
    ClassAnswer,
    CropTask,
    EmbeddingAnswer,
    Head,
    ModelFacts,
    PixelFormat,
    ResizeRule,
    TextAnswer,
)

__all__ = [
    "check_crops",
    "load_message",
    "model_description",
    "model_message",
    "payload_of",
    "priority_of",
    "recognition_message",
    "top_k_of",
]

MAX_TOP_K = 1000
_FORMATS = {
    crop_pb2.PIXEL_FORMAT_UNSPECIFIED: PixelFormat.BGR,
    crop_pb2.PIXEL_FORMAT_BGR: PixelFormat.BGR,
    crop_pb2.PIXEL_FORMAT_RGB: PixelFormat.RGB,
    crop_pb2.PIXEL_FORMAT_GRAY: PixelFormat.GRAY,
}
_FORMAT_MESSAGES = {PixelFormat.BGR: crop_pb2.PIXEL_FORMAT_BGR, PixelFormat.RGB: crop_pb2.PIXEL_FORMAT_RGB}
_RULES = {
    ResizeRule.FIT_HEIGHT: crop_pb2.RESIZE_RULE_FIT_HEIGHT,
    ResizeRule.STRETCH: crop_pb2.RESIZE_RULE_STRETCH,
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


def check_crops(request: pb.RecognizeRequest, known: Sequence[str], max_crops: int) -> str:
    """Check what concerns the request as a whole, and find the model.

    Args:
        request: as it came.
        known: models that are served, the default first.
        max_crops: most crops in a request.

    Returns:
        The one model that all its crops are for.

    Raises:
        InvalidOption: too many crops, crops for several models, or two crops with one id.
        UnknownModel: no such model.
    """
    if len(request.crops) > max_crops:
        raise InvalidOption(
            f"{len(request.crops)} crops in one request", metadata={"option": "crops", "max_crops": str(max_crops)}
        )
    names = {request.options.model, *(crop.model for crop in request.crops)} - {""}
    for name in sorted(names):
        if name not in known:
            raise UnknownModel(f"no model {name} is served", metadata={"model": name, "models": ", ".join(known)})
    if len(names) > 1:
        raise InvalidOption(
            f"crops for several models in one request: {', '.join(sorted(names))}", metadata={"option": "model"}
        )
    ids = {crop.id for crop in request.crops}
    if len(ids) != len(request.crops):
        raise InvalidOption("crops must have distinct ids", metadata={"option": "crops"})
    return names.pop() if names else known[0]


def payload_of(crop: crop_pb2.Crop, model: str, top_k: int, *, max_px: int, max_file_bytes: int) -> Payload:
    """What a worker gets for one crop.

    Raises:
        InvalidImage: nothing in it, an unknown format, no pixels, or bytes that are not height x width x channels.
        ImageTooLarge: above the limits.
    """
    content = crop.WhichOneof("content")
    if content == "encoded":
        data = crop.encoded
        if not data:
            raise InvalidImage("the crop's file is empty")
        if len(data) > max_file_bytes:
            raise ImageTooLarge("the crop's file is too large", metadata={"max_bytes": str(max_file_bytes)})
        return Payload(CropTask(model, top_k=top_k), (data,))
    if content != "raw":
        raise InvalidImage("the crop has neither raw pixels nor an encoded file")
    raw = crop.raw
    pixel_format = _FORMATS.get(raw.format)
    if pixel_format is None:
        raise InvalidImage(f"unknown pixel format {raw.format}")
    if raw.height < 1 or raw.width < 1:
        raise InvalidImage(f"the crop has {raw.height} x {raw.width} pixels")
    if raw.height > MAX_HEIGHT_PX or raw.width > MAX_WIDTH_PX or raw.height * raw.width > max_px:
        raise ImageTooLarge(
            f"the crop has {raw.height} x {raw.width} pixels",
            metadata={"max_height": str(MAX_HEIGHT_PX), "max_width": str(MAX_WIDTH_PX), "max_px": str(max_px)},
        )
    pixels = raw.data  # read once: protobuf makes a new bytes object at every access
    expected = raw.height * raw.width * pixel_format.channels
    if len(pixels) != expected:
        raise InvalidImage(
            f"{len(pixels)} bytes are not {raw.height} x {raw.width} x {pixel_format.channels} pixels",
            metadata={"expected_bytes": str(expected), "bytes": str(len(pixels))},
        )
    return Payload(CropTask(model, raw.height, raw.width, pixel_format, top_k), (pixels,))


def recognition_message(crop_id: int, result: Answer | SluicewayError, *, characters: bool) -> pb.Recognition:
    """The message for one crop."""
    if isinstance(result, SluicewayError):
        return pb.Recognition(crop_id=crop_id, error=error_to_proto(result))
    match result:
        case TextAnswer():
            listed: Iterable[pb.Character] = ()
            if characters:
                listed = (
                    pb.Character(text=text, confidence=confidence)
                    for text, confidence in zip(result.characters, result.character_confidences, strict=True)
                )
            text = pb.Text(text=result.text, confidence=result.confidence, characters=listed)
            return pb.Recognition(crop_id=crop_id, text=text)
        case ClassAnswer():
            labels = (pb.Label(class_id=index, class_name=name, confidence=p) for index, name, p in result.labels)
            return pb.Recognition(crop_id=crop_id, classification=pb.Classification(labels=labels))
        case EmbeddingAnswer():
            return pb.Recognition(crop_id=crop_id, embedding=pb.Embedding(values=array("f", result.vector)))
        case _:
            assert_never(result)


def model_message(facts: ModelFacts) -> model_pb2.Model:
    """The identity of a model."""
    return model_pb2.Model(name=facts.name, version=facts.version, weights_sha256=facts.weights_sha256)


def load_message(statistics: PoolStatistics) -> model_pb2.Load:
    """How busy this replica is."""
    return model_pb2.Load(
        queued=statistics.queued,
        running=statistics.running,
        capacity=statistics.capacity,
        queue_ms=statistics.queue_ms,
    )


def model_description(facts: ModelFacts) -> pb.ModelDescription:
    """What `Describe` says of a model."""
    spec = facts.crop_spec
    return pb.ModelDescription(
        model=model_message(facts),
        head=_HEADS[facts.head],
        crop_spec=crop_pb2.CropSpec(
            model=facts.name,
            height=spec.height,
            max_width=spec.max_width,
            format=_FORMAT_MESSAGES[spec.format],
            resize_rule=_RULES[spec.resize_rule],
            classes=spec.classes,
        ),
        labels=facts.labels,
        embedding_size=facts.embedding_size,
        backend=facts.backend,
        precision=facts.precision,
        device=facts.device,
    )
