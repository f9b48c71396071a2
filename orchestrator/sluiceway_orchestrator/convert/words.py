"""Words of a text, from parts of its crop to the page."""

from __future__ import annotations

from math import cos, radians, sin

from sluiceway.common.v1 import value_pb2
from sluiceway_orchestrator.geometry import TurnedBox

__all__ = ["place_words"]

_PARTS = 4


def place_words(text: value_pb2.Text, region: TurnedBox) -> None:
    """Say where the words of a text lie on the page.

    Args:
        text: whose words say where they lie in the crop.
        region: that was cut out, in pixels of the page.
    """
    angle = radians(region.angle_degrees)
    along, down = (cos(angle), sin(angle)), (-sin(angle), cos(angle))
    for word in text.words:
        if len(word.parts) == _PARTS:
            left, top, right, bottom = _in_region(text.rotation_degrees, *word.parts)
            across, below = ((left + right) / 2 - 0.5) * region.width, ((top + bottom) / 2 - 0.5) * region.height
            x = region.x + across * along[0] + below * down[0]
            y = region.y + across * along[1] + below * down[1]
            width, height = (right - left) * region.width, (bottom - top) * region.height
            if region.angle_degrees:
                box = word.geometry.rotated_box
                box.center.x, box.center.y, box.width, box.height = x, y, width, height
                box.angle_degrees = region.angle_degrees
            else:
                upright = word.geometry.box
                upright.x0, upright.y0 = x - width / 2, y - height / 2
                upright.x1, upright.y1 = x + width / 2, y + height / 2
        del word.parts[:]


def _in_region(
    rotation: int, left: float, top: float, right: float, bottom: float
) -> tuple[float, float, float, float]:
    """A box in parts of a crop, in parts of the region that was turned to make it."""
    match rotation:
        case 90:  # it runs down: the crop's upper edge is the region's right one
            return 1 - bottom, left, 1 - top, right
        case 180:
            return 1 - right, 1 - bottom, 1 - left, 1 - top
        case 270:
            return top, 1 - right, bottom, 1 - left
        case _:
            return left, top, right, bottom
