"""Whether a model gives the same places in fewer digits, or compiled, as it does in f32."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.shapes import InputShape
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr
from sluiceway_detection.yolo.postprocess import rows_of_queries

__all__ = [
    "answers_differ",
    "maps_differ",
    "outputs_differ",
    "places_differ",
    "raw_answers_differ",
    "reference_image",
    "trial_images",
]

FloatArray = npt.NDArray[np.floating]

# A place below this is noise in any arithmetic, and so is its class.
_LEAST_CONFIDENCE = 0.25
# FACTS of the trade: bf16 boxes match f32 boxes at an overlap above 0.8 in 99% or more. Fewer than 95% of the strongest
# places of one picture means that the model does not bear bf16.
_LEAST_IOU, _LEAST_AGREEING, _STRONGEST = 0.8, 0.95, 100
_LARGEST_SHIFT = 0.1  # of a confidence


def reference_image(shape: InputShape) -> ImageBgr:
    """A drawn page with a picture: lines of text, frames, and a face of circles; the same on every machine."""
    height, width = shape
    image = np.full((height, width, 3), 235, np.uint8)
    step = max(height // 16, 12)
    scale = step / 40
    for row in range(step, height * 2 // 3, step):
        text = f"Line {row}: lock 14 lets the water down, {row * 7} litres"
        cv2.putText(image, text, (width // 20, row), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)
    top, left = height * 2 // 3, width // 20
    across = np.linspace(40, 220, width - 2 * left).astype(np.uint8)
    image[top : height - height // 20, left : width - left] = across[None, :, None]
    centre, radius = (width // 2, (top + height) // 2), max(height // 10, 8)
    cv2.circle(image, centre, radius, (90, 130, 200), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (centre[0] + side * radius // 3, centre[1] - radius // 4)
        cv2.circle(image, eye, max(radius // 8, 2), (20, 20, 20), -1, cv2.LINE_AA)
    return image


def trial_images(shape: InputShape) -> tuple[ImageBgr, ...]:
    """A drawn page, and the same mirrored: rows of a batch have to differ, so that a mix-up of rows shows."""
    page = reference_image(shape)
    return page, np.ascontiguousarray(cv2.flip(page, 1), np.uint8)


def answers_differ(expected: Output, found: Output, card: ModelCard) -> str | None:
    """What is wrong with the places or the map of one image, whichever the model gives; None if nothing is.

    Of what a model says beside boxes and classes only that it is finite is looked at: it comes of the same layers.
    """
    first, other = _boxes_of(expected, card), _boxes_of(found, card)
    if card.map_reading is not None:
        return maps_differ(first, other, card.map_reading.threshold)
    if not all(np.isfinite(part).all() for part in (found if isinstance(found, tuple) else (found,))):
        return "it gives numbers that are not finite"
    if card.end_to_end or card.head.transformer is not None:
        return places_differ(first[:, :6], other[:, :6], end_to_end=True)
    return places_differ(first[:6], other[:6], end_to_end=False)


def raw_answers_differ(expected: Output, found: Output, card: ModelCard) -> str | None:
    """The same of raw outputs: those of a classic head have all classes of each place."""
    if card.map_reading is not None or card.end_to_end or card.head.transformer is not None:
        return answers_differ(expected, found, card)
    numbers = 4 + len(card.classes)
    return outputs_differ(_boxes_of(expected, card)[:numbers], _boxes_of(found, card)[:numbers], end_to_end=False)


def _boxes_of(output: Output, card: ModelCard) -> FloatArray:
    """A map, places, or rows with corners in pixels of the input."""
    if card.head.transformer is None:
        array = output[0] if isinstance(output, tuple) else output
        if array.dtype == np.uint8:  # a map in bytes
            return np.asarray(array / np.float32(255), np.float32)
        if not (card.end_to_end and card.head.task == "obb"):
            return np.asarray(array)
        rows, scale = array, np.ones(4)
    else:
        height, width = card.native_shape
        rows, scale = rows_of_queries(output, card.head), np.array((width, height, width, height))
    centre, half = rows[:, :2] * scale[:2], rows[:, 2:4] * scale[:2] / 2
    return np.concatenate((centre - half, centre + half, rows[:, 4:6]), axis=1)


def maps_differ(expected: FloatArray, found: FloatArray, threshold: float) -> str | None:
    """What is wrong with a DB model's map of one image; None if nothing is.

    Args:
        expected: in f32, [1, H, W].
        found: likewise.
        threshold: pixels above it are text.
    """
    if expected.shape != found.shape:
        return f"it gives {list(found.shape)} instead of {list(expected.shape)}"
    if not np.isfinite(found).all():
        return "it gives numbers that are not finite"
    text, text_found = expected > threshold, found > threshold
    either = np.count_nonzero(text | text_found)
    common = np.count_nonzero(text & text_found)
    if either and common < _LEAST_AGREEING * either:
        return f"only {common / either:.0%} of the pixels of text stay text"
    shift = float(np.abs(expected[text] - found[text]).mean()) if common else 0.0
    return f"the map differs by {shift:.2f} in the mean" if shift > _LARGEST_SHIFT else None


def outputs_differ(expected: FloatArray, found: FloatArray, *, end_to_end: bool) -> str | None:
    """What is wrong with a head's raw output for one image; None if nothing is.

    Args:
        expected: in f32. Of a classic head [4 + classes, places], of an NMS-free one [rows, 6].
        found: likewise.
        end_to_end: which of the two.
    """
    return places_differ(expected, found, end_to_end=True) if end_to_end else _difference(expected, found)


def places_differ(expected: FloatArray, found: FloatArray, *, end_to_end: bool) -> str | None:
    """What is wrong with the places of one image (see `PlacesNet`); None if nothing is.

    Args:
        expected: in f32. Of a classic head [6, places], of an NMS-free one [rows, 6].
        found: likewise.
        end_to_end: which of the two.
    """
    if expected.shape != found.shape:
        return f"it gives {list(found.shape)} instead of {list(expected.shape)}"
    if not np.isfinite(found).all():
        return "it gives numbers that are not finite"
    if end_to_end:
        expected, found = _as_places(expected), _as_places(found)
        found = found[:, _partners(expected, found)]
    # A box without area is no region, and overlaps with nothing, not even with itself.
    solid = (expected[2:4] > 0).all(axis=0)
    expected, found = expected[:, solid], found[:, solid]
    if not solid.any():
        return None
    fault = _difference(expected[:5], found[:5])
    if fault:
        return fault
    sure = expected[4] > _LEAST_CONFIDENCE
    same = expected[5, sure] == found[5, sure]
    if len(same) and same.mean() < _LEAST_AGREEING:
        return f"only {same.mean():.0%} of the boxes keep their class"
    return None


def _as_places(rows: FloatArray) -> FloatArray:
    corners = rows[:, :4]
    return np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2], rows[:, 4:]), 1).T


def _partners(expected: FloatArray, found: FloatArray) -> npt.NDArray[np.intp]:
    """For each place the nearest one found, of its class if there is one: rows come by confidence, which rounds."""
    chosen = []
    for place in expected.T:
        closeness = _overlap(np.repeat(place[:4, None], found.shape[1], 1), found[:4])
        chosen.append(int(np.argmax(closeness + (found[5] == place[5]) - np.abs(found[4] - place[4]))))
    return np.array(chosen, np.intp)


def _difference(expected: FloatArray, found: FloatArray) -> str | None:
    """What is wrong with `found`, both [4 + classes, places]; None if nothing is."""
    if not np.isfinite(found).all():
        return "it gives numbers that are not finite"
    scores = expected[4:].max(axis=0)
    strongest = np.argsort(-scores)[:_STRONGEST]
    shift = float(np.abs(expected[4:, strongest] - found[4:, strongest]).max())
    if shift > _LARGEST_SHIFT:
        return f"a confidence differs by {shift:.2f}"
    # Weak places are noise in any arithmetic; only what could become a region is compared.
    places = strongest[scores[strongest] > _LARGEST_SHIFT]
    agreeing = _overlap(expected[:4, places], found[:4, places]) > _LEAST_IOU
    if len(places) and agreeing.mean() < _LEAST_AGREEING:
        return f"only {agreeing.mean():.0%} of the boxes stay where they are"
    return None


def _overlap(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of boxes given as centre and size, [4, N] each."""
    lower = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    upper = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = np.prod(np.maximum(upper - lower, 0), axis=0)
    return np.asarray(common / np.maximum(np.prod(a[2:], axis=0) + np.prod(b[2:], axis=0) - common, 1e-9))
