"""Whether parts of an image have to be shown larger than a first look showed them, and which.

Regions that were found may be so low that others like them were missed, or were found badly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.types import Detections

__all__ = ["AROUND_PX", "GOOD_PX", "Closer", "closer_look"]

# Regions of letters that are found and told apart as well as any: what a closer look is to show.
GOOD_PX = 14.0
# Around what is to be looked at, as shown: whatever stands beside it is likely of the same size.
AROUND_PX = 32
# A region this low, in pixels as shown, is of letters of 7 pixels or less: between 5 and 7, up to 8% of the words are
# missed. And how many of an image's regions are so where its print is small: a comma is low as well.
_LOW_PX = 8.5
_LOW_SHARE = 0.1
# A closer look that shows things less than so much larger is not worth its cost.
_LEAST_GAIN = 1.25


class Closer(NamedTuple):
    """A closer look.

    Attributes:
        scale: at which it has to show the image.
        area_px: left, top, right and bottom of the part that it is for, in pixels of the image.
    """

    scale: float
    area_px: tuple[float, float, float, float]

    def covers(self, image_shape: tuple[int, int]) -> bool:
        """Whether all of an image of this height and width is to be looked at."""
        return self.area_px == (0, 0, image_shape[1], image_shape[0])


def closer_look(letterbox: Letterbox, found: Detections, probed: Closer | None) -> Closer | None:
    """What has to be looked at more closely, if anything.

    Args:
        letterbox: how the first look showed the image.
        found: by the first look, in pixels of the image.
        probed: what a probe says.

    Returns:
        One look for all; its scale is at most 1.
    """
    wanted = [probed] if probed is not None else []
    boxes = found.boxes_xyxy_px
    heights = np.minimum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) * letterbox.scale
    low = heights < _LOW_PX
    if np.count_nonzero(low) > _LOW_SHARE * len(low):
        around = AROUND_PX / letterbox.scale
        area = (*(boxes[low, :2].min(axis=0) - around).tolist(), *(boxes[low, 2:].max(axis=0) + around).tolist())
        wanted.append(Closer(letterbox.scale * GOOD_PX / float(heights[low].min()), area))
    if not wanted:
        return None
    scale = min(1.0, max(look.scale for look in wanted))
    if scale < letterbox.scale * _LEAST_GAIN:
        return None
    areas = np.array([look.area_px for look in wanted])
    lower, upper = areas[:, :2].min(axis=0), areas[:, 2:].max(axis=0)
    # What reaches into it is looked at as a whole: it may be a part of the same print, taken for one large line.
    reaching = boxes[((boxes[:, :2] < upper) & (boxes[:, 2:] > lower)).all(axis=1)]
    (left, top), (right, bottom) = (
        np.min([lower, *reaching[:, :2]], axis=0).tolist(),
        np.max([upper, *reaching[:, 2:]], axis=0).tolist(),
    )
    height, width = letterbox.image_shape
    return Closer(scale, (max(left, 0), max(top, 0), min(right, width), min(bottom, height)))
