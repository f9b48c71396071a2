"""An image shown in parts: several inputs of a model that overlap, each of a place in the scaled image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sluiceway_detection.inputs.letterbox import PADDING_GREY, Letterbox
from sluiceway_detection.inputs.shapes import STRIDE, Inputs, InputShape
from sluiceway_detection.types import ImageBgr

__all__ = ["CONTEXT_PX", "Area", "Part", "Parts", "content_at"]

# Pixels around what a part decides: whatever is looked for has to be seen with what surrounds it. At most a quarter of
# an input.
CONTEXT_PX = 64

Area = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the scaled image; the outer corner."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where one input lies in the scaled image, and the area that it decides: of what two show, the half that lies
    deeper inside of it.
    """

    left: int
    top: int
    input_shape: InputShape
    own: Area


class Parts:
    """A scaled image, and the inputs that show it.

    Args:
        image_bgr: uint8 [H, W, 3].
        content_shape: height and width to which it is scaled.
        inputs: of the model.
        image_size_px: longer side of an input; None takes the default.
        area: which part of it is to be looked at; None takes all of it.

    Attributes:
        letterbox: how the image lies in the scaled one.
    """

    def __init__(
        self,
        image_bgr: ImageBgr,
        content_shape: tuple[int, int],
        inputs: Inputs,
        image_size_px: int | None = None,
        *,
        area: Area | None = None,
    ) -> None:
        height, width = content_shape
        self._image = image_bgr
        self.letterbox = Letterbox(content_shape, (image_bgr.shape[0], image_bgr.shape[1]), content_shape, 0, 0)
        self._parts = list(_parts(area or (0, 0, width, height), content_shape, inputs, image_size_px))

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def draw(self) -> list[ImageBgr]:
        """The inputs, uint8 [h, w, 3] each."""
        scaled = self.letterbox.draw(self._image)
        return [_cut(scaled, part) for part in self._parts]


def content_at(image_shape: tuple[int, int], scale: float, most_px: int) -> tuple[int, int]:
    """Height and width of an image at a scale, or as large as so many pixels allow."""
    scale = min(scale, math.sqrt(most_px / (image_shape[0] * image_shape[1])))
    height, width = (max(round(side * scale), 1) for side in image_shape)
    return height, width


def _parts(area: Area, content_shape: tuple[int, int], inputs: Inputs, image_size_px: int | None) -> Iterator[Part]:
    left, top, right, bottom = area
    height, width = content_shape
    largest = inputs.largest(image_size_px)
    rows, part_height = _along(top, bottom, height, largest[0], free=inputs.any_shape)
    columns, part_width = _along(left, right, width, largest[1], free=inputs.any_shape)
    for y, own_top, own_bottom in rows:
        for x, own_left, own_right in columns:
            yield Part(x, y, (part_height, part_width), (own_left, own_top, own_right, own_bottom))


def _along(begin: int, end: int, total: int, most: int, *, free: bool) -> tuple[list[tuple[int, int, int]], int]:
    """Divide a stretch of one axis into parts that overlap.

    Args:
        begin: first pixel of the stretch.
        end: the one behind its last.
        total: pixels that there are.
        most: of a part.
        free: whether a part may be shorter than that.

    Returns:
        For each part where it begins, and from where to where it decides; and how long a part is.
    """
    context = min(CONTEXT_PX, most // 4)
    first, last = max(begin - context, 0), min(end + context, total)
    size = min(-(-(last - first) // STRIDE) * STRIDE, most) if free else most
    if last - first <= size:
        return [(max(min(first, total - size), 0), begin, end)], size
    count = math.ceil((last - first - 2 * context) / (size - 2 * context))
    starts = [round(first + number * (last - first - size) / (count - 1)) for number in range(count)]
    cuts = [begin, *((before + size + after) // 2 for before, after in pairwise(starts)), end]
    return list(zip(starts, cuts[:-1], cuts[1:], strict=True)), size


def _cut(scaled: ImageBgr, part: Part) -> ImageBgr:
    height, width = part.input_shape
    pixels = scaled[part.top : part.top + height, part.left : part.left + width]
    if pixels.shape[:2] == part.input_shape:
        return np.ascontiguousarray(pixels)
    canvas = np.full((height, width, 3), PADDING_GREY, np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
