"""From the answers of workers to the contract's responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sluiceway_runtime.errors import InvalidOption, SluicewayError
from sluiceway_runtime.images.notices import MESSAGES
from sluiceway_runtime.pool import Buffer, Outcome
from sluiceway_runtime.server.convert import error_to_proto

from sluiceway.common.v1 import crop_pb2, geometry_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.crops import MAX_CROPS, CropPlan
from sluiceway_detection.front.convert.formats import NUMBERS
from sluiceway_detection.front.identity import Identity
from sluiceway_detection.job import CropFacts, DetectionAnswer
from sluiceway_detection.types import RotatedBox, Shape

__all__ = ["add_answer", "add_failure", "crop_spec_message", "model_message"]

# Reasons of notices; stable.
IMAGE_SCALED, REGIONS_TRUNCATED = "IMAGE_SCALED", "REGIONS_TRUNCATED"
# Letters whose font is lower than this, as a detector of text is shown them, it begins to miss: DB model and text-nano
# alike. Print of 8 pt at 300 dpi is 33 pixels high, so it needs a quarter of its size.
LEAST_SHOWN_PX = 8
SMALL_PRINT_SCALE = 0.25


def add_answer(
    response: pb.DetectResponse,
    outcome: Outcome,
    plans: Sequence[CropPlan],
    classes: Sequence[str],
    parent_id: int | None = None,
) -> None:
    """Add what was found in the image, or in one crop of a request.

    Args:
        response: ids of regions go on from those that it has.
        outcome: with a `DetectionAnswer`.
        plans: that its crops were cut to.
        classes: names by class id.
        parent_id: of the crop; None for an image.

    Raises:
        InvalidOption: more crops than an answer holds.
    """
    answer = outcome.payload.meta
    assert isinstance(answer, DetectionAnswer)
    if len(response.crops) + len(answer.crops) > MAX_CROPS:
        raise InvalidOption(
            f"more than {MAX_CROPS} crops were cut, and no more fit into an answer; ask for fewer regions "
            "(max_detections), crops or specs",
            metadata={"limit": "max_crops", "max": str(MAX_CROPS)},
        )
    first_id, shapes = len(response.detections), dict(answer.shapes)
    for row, (box, class_id, confidence) in enumerate(answer.regions()):
        # In place: a message that is put into another one is copied.
        detection = response.detections.add(
            id=first_id + row,
            class_id=class_id,
            class_name=classes[class_id] if class_id < len(classes) else f"class{class_id}",
            confidence=confidence,
            parent_id=parent_id,
        )
        _set_geometry(detection.geometry, box, shapes.get(row))
    if answer.keypoints:
        for row, detection in enumerate(response.detections[first_id:]):
            for x, y, confidence in answer.keypoints_of(row):
                detection.keypoints.add(x=x, y=y, confidence=confidence)
    for crop, pixels in zip(answer.crops, outcome.payload.buffers, strict=True):
        _add_crop(response.crops.add(id=first_id + crop.detection), crop, plans[crop.plan], pixels)
    for reason in answer.notices:
        _note(response, reason, MESSAGES[reason])
    if answer.left_out:
        _note_left_out(response, len(answer.confidences) // 4)
    if parent_id is None:
        response.width, response.height = answer.width_px, answer.height_px
        if answer.too_small or answer.scale < SMALL_PRINT_SCALE:
            _note_scale(response, answer.scale)
    # Crops are computed side by side: of those, the longest.
    timings = response.timings
    timings.queue_ms = max(timings.queue_ms, outcome.queue_ms)
    timings.compute_ms = max(timings.compute_ms, outcome.compute_ms)
    timings.decode_ms = max(timings.decode_ms, answer.decode_ms)


def add_failure(response: pb.DetectResponse, crop_id: int, error: SluicewayError) -> None:
    """Say why one crop of a request was not looked at."""
    response.failures.append(pb.CropFailure(crop_id=crop_id, error=error_to_proto(error)))


def model_message(identity: Identity) -> model_pb2.Model:
    """The identity of the weights."""
    return model_pb2.Model(name=identity.name, version=identity.version, weights_sha256=identity.weights_sha256)


def crop_spec_message(longest_px: int) -> crop_pb2.CropSpec:
    """The crops that a detector wants of regions that it is to look at."""
    return crop_pb2.CropSpec(
        max_width=longest_px, format=crop_pb2.PIXEL_FORMAT_BGR, resize_rule=crop_pb2.RESIZE_RULE_FIT_LONGEST
    )


def _note(response: pb.DetectResponse, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
    # Of several crops one speaks for all.
    if all(notice.reason != reason for notice in response.notices):
        response.notices.add(reason=reason, message=message, metadata=metadata)


def _note_left_out(response: pb.DetectResponse, count: int) -> None:
    _note(
        response,
        REGIONS_TRUNCATED,
        f"more than {count} regions were found; the most confident are told (max_detections)",
        {"limit": "max_detections", "max": str(count)},
    )


def _note_scale(response: pb.DetectResponse, scale: float) -> None:
    least_px = round(LEAST_SHOWN_PX / scale)
    _note(
        response,
        IMAGE_SCALED,
        f"the image was shown to the detector at {scale:.2g} of its size; what is lower than {least_px} pixels "
        "may be missing (scale, image_size)",
        {"scale": f"{scale:.4g}", "least_px": str(least_px)},
    )


def _add_crop(message: crop_pb2.Crop, crop: CropFacts, plan: CropPlan, pixels: Buffer) -> None:
    # Field by field: a message that is put into another one is copied with its pixels.
    message.spec = plan.name
    raw = message.raw
    raw.height, raw.width, raw.format = crop.height_px, crop.width_px, NUMBERS[plan.pixel_format]
    raw.data = bytes(pixels)
    if crop.to_image is not None:
        message.to_image.matrix.extend(crop.to_image)
    if crop.turned:
        message.rotation_degrees = 90


def _set_geometry(message: geometry_pb2.Geometry, box: tuple[float, float, float, float], shape: Shape | None) -> None:
    if shape is None:
        upright = message.box
        upright.x0, upright.y0, upright.x1, upright.y1 = box
    elif isinstance(shape, RotatedBox):
        rotated = message.rotated_box
        rotated.center.x, rotated.center.y = shape.center_xy_px
        rotated.width, rotated.height = shape.width_px, shape.height_px
        rotated.angle_degrees = (shape.angle_degrees + 180) % 360 - 180
    else:
        message.polygon.SetInParent()
        for x, y in shape.points_xy_px:
            message.polygon.points.add(x=x, y=y)
