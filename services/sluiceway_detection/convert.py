"""Between the contract's messages and the stage's own values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.pool import Outcome, Priority

from sluiceway.common.v1 import crop_pb2, geometry_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.config import MAX_DETECTIONS
from sluiceway_detection.crops import CropPlan
from sluiceway_detection.job import DetectionAnswer, DetectionJob
from sluiceway_detection.postprocess import Selection
from sluiceway_detection.types import RotatedBox, Shape

__all__ = ["Defaults", "Identity", "job_of", "model_message", "priority_of", "response_of"]

# The bounds of the contract, which its comments state.
MAX_CROP_HEIGHT_PX = 4096
MAX_CROP_WIDTH_PX = 16_384
# Ours: one spec for each recognition model, of which nobody serves more.
MAX_CROP_SPECS = 32
# As long as a recognition server lets the name of a model be. It is copied into every crop of an answer.
MAX_MODEL_CHARACTERS = 100
# So much of what a client sent is repeated in an error: it travels in trailers, of which gRPC takes some kilobytes.
_SHOWN_CHARACTERS = 100

_FORMATS: Mapping[int, Literal["bgr", "rgb", "gray"]] = {
    crop_pb2.PIXEL_FORMAT_UNSPECIFIED: "bgr",
    crop_pb2.PIXEL_FORMAT_BGR: "bgr",
    crop_pb2.PIXEL_FORMAT_RGB: "rgb",
    crop_pb2.PIXEL_FORMAT_GRAY: "gray",
}
_FORMAT_MESSAGES: Mapping[str, crop_pb2.PixelFormat.ValueType] = {
    "bgr": crop_pb2.PIXEL_FORMAT_BGR,
    "rgb": crop_pb2.PIXEL_FORMAT_RGB,
    "gray": crop_pb2.PIXEL_FORMAT_GRAY,
}
_PRIORITIES: Mapping[int, Priority] = {
    model_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    model_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    model_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    model_pb2.PRIORITY_BULK: Priority.BULK,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose answers these are; see `common.v1.Model`."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a request leaves an option out, and what options may name."""

    confidence: float
    iou: float
    max_detections: int
    classes: tuple[str, ...]
    image_sizes: tuple[int, ...]


def job_of(request: pb.DetectRequest, defaults: Defaults) -> DetectionJob:
    """Check the options and crop specs of a request.

    Raises:
        InvalidOption: out of range, or an unknown class or image size; `metadata["option"]` names it.
    """
    options = request.options
    selection = Selection(
        confidence=_share("confidence", options.confidence) if options.HasField("confidence") else defaults.confidence,
        iou=_share("iou", options.iou) if options.HasField("iou") else defaults.iou,
        max_detections=_max_detections(options, defaults),
        class_ids=_class_ids("classes", options.classes, defaults.classes),
    )
    size = None
    if options.HasField("image_size"):
        size = options.image_size
        if size not in defaults.image_sizes:
            known = ", ".join(str(known) for known in defaults.image_sizes) or "none: the detector decides by itself"
            raise _invalid("image_size", f"{size} is not served; there are {known}")
    if len(request.crop_specs) > MAX_CROP_SPECS:
        raise _invalid("crop_specs", f"{len(request.crop_specs)} are too many; at most {MAX_CROP_SPECS}")
    plans = tuple(_plan_of(spec, defaults.classes) for spec in request.crop_specs)
    if len({plan.model for plan in plans}) < len(plans):
        raise _invalid("crop_specs", "two are for the same model")
    return DetectionJob(selection, size, plans)


def priority_of(value: int) -> Priority:
    """The queue's class for the message's.

    Raises:
        InvalidOption: a value that this release does not know.
    """
    if value not in _PRIORITIES:
        raise _invalid("priority", f"{value} is unknown")
    return _PRIORITIES[value]


def response_of(
    outcome: Outcome, job: DetectionJob, classes: Sequence[str], model: model_pb2.Model, total_ms: float
) -> pb.DetectResponse:
    """The answer to a request, without the load."""
    answer = outcome.payload.meta
    assert isinstance(answer, DetectionAnswer)
    shapes = dict(answer.shapes)
    return pb.DetectResponse(
        width=answer.width_px,
        height=answer.height_px,
        detections=[
            pb.Detection(
                id=row,
                geometry=_geometry(box, shapes.get(row)),
                class_id=class_id,
                class_name=classes[class_id] if class_id < len(classes) else f"class{class_id}",
                confidence=confidence,
            )
            for row, (box, class_id, confidence) in enumerate(answer.regions())
        ],
        model=model,
        timings=model_pb2.StageTimings(
            queue_ms=outcome.queue_ms,
            compute_ms=outcome.compute_ms,
            total_ms=total_ms,
            decode_ms=answer.decode_ms,
        ),
        crops=[
            crop_pb2.Crop(
                id=crop.detection,
                model=job.crops[crop.plan].model,
                raw=crop_pb2.RawImage(
                    height=crop.height_px,
                    width=crop.width_px,
                    format=_FORMAT_MESSAGES[job.crops[crop.plan].pixel_format],
                    data=bytes(pixels),
                ),
            )
            for crop, pixels in zip(answer.crops, outcome.payload.buffers, strict=True)
        ],
    )


def model_message(identity: Identity) -> model_pb2.Model:
    """The identity of the weights."""
    return model_pb2.Model(name=identity.name, version=identity.version, weights_sha256=identity.weights_sha256)


def _geometry(box: tuple[float, float, float, float], shape: Shape | None) -> geometry_pb2.Geometry:
    if shape is None:
        x0, y0, x1, y1 = box
        return geometry_pb2.Geometry(box=geometry_pb2.Box(x0=x0, y0=y0, x1=x1, y1=y1))
    if isinstance(shape, RotatedBox):
        return geometry_pb2.Geometry(
            rotated_box=geometry_pb2.RotatedBox(
                center=geometry_pb2.Point(x=shape.center_xy_px[0], y=shape.center_xy_px[1]),
                width=shape.width_px,
                height=shape.height_px,
                angle_degrees=(shape.angle_degrees + 180) % 360 - 180,
            )
        )
    points = [geometry_pb2.Point(x=x, y=y) for x, y in shape.points_xy_px]
    return geometry_pb2.Geometry(polygon=geometry_pb2.Polygon(points=points))


def _plan_of(spec: crop_pb2.CropSpec, classes: Sequence[str]) -> CropPlan:
    if len(spec.model) > MAX_MODEL_CHARACTERS:
        raise _invalid("crop_specs.model", f"{len(spec.model)} characters are more than {MAX_MODEL_CHARACTERS}")
    if not 1 <= spec.height <= MAX_CROP_HEIGHT_PX:
        raise _invalid("crop_specs.height", f"{spec.height} is not within 1 to {MAX_CROP_HEIGHT_PX}")
    if not 1 <= spec.max_width <= MAX_CROP_WIDTH_PX:
        raise _invalid("crop_specs.max_width", f"{spec.max_width} is not within 1 to {MAX_CROP_WIDTH_PX}")
    if spec.format not in _FORMATS:
        raise _invalid("crop_specs.format", f"{spec.format} is unknown")
    if spec.resize_rule not in crop_pb2.ResizeRule.values():
        raise _invalid("crop_specs.resize_rule", f"{spec.resize_rule} is unknown")
    return CropPlan(
        model=spec.model,
        height_px=spec.height,
        max_width_px=spec.max_width,
        pixel_format=_FORMATS[spec.format],
        stretch=spec.resize_rule == crop_pb2.RESIZE_RULE_STRETCH,
        # A recogniser's routing may name classes of another detection model; it then simply gets none of those.
        class_ids=frozenset(_known_ids(spec.classes, classes)) if spec.classes else None,
    )


def _max_detections(options: pb.DetectOptions, defaults: Defaults) -> int:
    if not options.HasField("max_detections"):
        return defaults.max_detections
    if not 1 <= options.max_detections <= MAX_DETECTIONS:
        raise _invalid("max_detections", f"{options.max_detections} is not within 1 to {MAX_DETECTIONS}")
    return options.max_detections


def _class_ids(option: str, names: Sequence[str], classes: Sequence[str]) -> frozenset[int] | None:
    unknown = sorted(set(names) - set(classes))
    if unknown:
        shown = unknown[0][:_SHOWN_CHARACTERS]
        raise _invalid(option, f"unknown class {shown!r}; there are {', '.join(classes[:100])}")
    return frozenset(_known_ids(names, classes)) if names else None


def _known_ids(names: Iterable[str], classes: Sequence[str]) -> Iterable[int]:
    wanted = set(names)
    return (index for index, name in enumerate(classes) if name in wanted)


def _share(option: str, value: float) -> float:
    if not (math.isfinite(value) and 0 < value <= 1):
        raise _invalid(option, f"{value:g} is not within (0, 1]")
    return value


def _invalid(option: str, message: str) -> InvalidOption:
    return InvalidOption(f"{option}: {message}", metadata={"option": option})
