"""Whether a model gives the same places in fewer digits, or compiled, as it does in f32."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.input_shapes import InputShape
from sluiceway_detection.precision import difference, overlap, reference_image
from sluiceway_detection.types import ImageBgr

__all__ = ["places_differ", "trial_images"]

FloatArray = npt.NDArray[np.floating]

# A place below this is noise in any arithmetic, and so is its class.
_LEAST_CONFIDENCE = 0.25
_LEAST_AGREEING = 0.95


def trial_images(shape: InputShape) -> tuple[ImageBgr, ...]:
    """A drawn page, and the same mirrored: rows of a batch have to differ, so that a mix-up of rows shows."""
    page = reference_image(shape)
    return page, np.ascontiguousarray(cv2.flip(page, 1), np.uint8)


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
    fault = difference(expected[:5], found[:5])
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
        closeness = overlap(np.repeat(place[:4, None], found.shape[1], 1), found[:4])
        chosen.append(int(np.argmax(closeness + (found[5] == place[5]) - np.abs(found[4] - place[4]))))
    return np.array(chosen, np.intp)
