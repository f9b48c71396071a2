"""From the options and crop specs of a request to the job of a worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.images.scale import Scale, scale_of
from sluiceway_runtime.pool import Priority

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.config import MAX_DETECTIONS
from sluiceway_detection.crops import CropPlan, ResizeRule
from sluiceway_detection.front.convert.formats import FORMATS
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection

__all__ = ["Defaults", "job_of", "priority_of"]

# The bounds of the contract, which its comments state.
MAX_CROP_HEIGHT_PX = 4096
MAX_CROP_WIDTH_PX = 16_384
# Ours: one spec for each recognition model, of which nobody serves more.
MAX_CROP_SPECS = 32
# The contract's. It is copied into every crop of an answer.
MAX_NAME_CHARACTERS = 100
# So much of what a client sent is repeated in an error: it travels in trailers, of which gRPC takes some kilobytes.
_SHOWN_CHARACTERS = 100
MAX_ALIGN_POINTS = 100

_RULES: Mapping[int, ResizeRule] = {
    crop_pb2.RESIZE_RULE_UNSPECIFIED: "fit_height",
    crop_pb2.RESIZE_RULE_FIT_HEIGHT: "fit_height",
    crop_pb2.RESIZE_RULE_STRETCH: "stretch",
    crop_pb2.RESIZE_RULE_FIT_LONGEST: "fit_longest",
    crop_pb2.RESIZE_RULE_COVER: "cover",
}
_PRIORITIES: Mapping[int, Priority] = {
    model_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    model_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    model_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    model_pb2.PRIORITY_BULK: Priority.BULK,
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a request leaves an option out, and what options may name."""

    confidence: float
    iou: float
    max_detections: int
    classes: tuple[str, ...]
    image_sizes: tuple[int, ...]
    scale: Scale = "fast"
    class_agnostic: bool = False
    scales: bool = False
    """Whether the model knows another scale than `fast`."""


def job_of(request: pb.DetectRequest | pb.DetectPagesRequest, defaults: Defaults) -> DetectionJob:
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
        agnostic=options.class_agnostic if options.HasField("class_agnostic") else defaults.class_agnostic,
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
    if len({plan.name for plan in plans}) < len(plans):
        raise _invalid("crop_specs", "two have the same name")
    return DetectionJob(selection, size, plans, scale=_scale(options, defaults))


def priority_of(value: int) -> Priority:
    """The queue's class for the message's.

    Raises:
        InvalidOption: a value that this release does not know.
    """
    if value not in _PRIORITIES:
        raise _invalid("priority", f"{value} is unknown")
    return _PRIORITIES[value]


def _plan_of(spec: crop_pb2.CropSpec, classes: Sequence[str]) -> CropPlan:
    if len(spec.name) > MAX_NAME_CHARACTERS:
        raise _invalid("crop_specs.name", f"{len(spec.name)} characters are more than {MAX_NAME_CHARACTERS}")
    if spec.resize_rule not in _RULES:
        raise _invalid("crop_specs.resize_rule", f"{spec.resize_rule} is unknown")
    rule = _RULES[spec.resize_rule]
    if rule != "fit_longest" and not 1 <= spec.height <= MAX_CROP_HEIGHT_PX:
        raise _invalid("crop_specs.height", f"{spec.height} is not within 1 to {MAX_CROP_HEIGHT_PX}")
    if not 1 <= spec.max_width <= MAX_CROP_WIDTH_PX:
        raise _invalid("crop_specs.max_width", f"{spec.max_width} is not within 1 to {MAX_CROP_WIDTH_PX}")
    if not (spec.turn_ratio == 0 or (math.isfinite(spec.turn_ratio) and spec.turn_ratio >= 1)):
        raise _invalid("crop_specs.turn_ratio", f"{spec.turn_ratio:g} is neither 0 nor at least 1")
    if spec.format not in FORMATS:
        raise _invalid("crop_specs.format", f"{spec.format} is unknown")
    return CropPlan(
        name=spec.name,
        height_px=spec.height,
        max_width_px=spec.max_width,
        pixel_format=FORMATS[spec.format],
        rule=rule,
        # A pipeline may name classes of another detection model; it then simply gets none of those.
        class_ids=frozenset(_known_ids(spec.classes, classes)) if spec.classes else None,
        turn_ratio=spec.turn_ratio,
        align=_align(spec),
    )


def _align(spec: crop_pb2.CropSpec) -> tuple[tuple[float, float], ...]:
    values = spec.align_points
    if not values:
        return ()
    if len(values) % 2 or not 4 <= len(values) <= 2 * MAX_ALIGN_POINTS:
        raise _invalid("crop_specs.align_points", f"{len(values)} numbers are not 2 to {MAX_ALIGN_POINTS} points")
    # Beyond the crop points may lie, but not so far that its pixels would be none.
    if not all(-10 <= value <= 10 for value in values):
        raise _invalid("crop_specs.align_points", "must be parts of the crop's width and height")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _scale(options: pb.DetectOptions, defaults: Defaults) -> Scale:
    if not options.HasField("scale"):
        return defaults.scale
    try:
        scale = scale_of(options.scale)
    except ValueError as error:
        raise _invalid("scale", str(error)) from None
    if scale != "fast" and not defaults.scales:
        raise _invalid("scale", f"{options.scale} is for models of boxes or maps; this one knows fast alone")
    return scale


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
