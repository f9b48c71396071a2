"""An image shown in parts: several inputs of a model that overlap, whose maps become one map of all of it.

Maps are joined before they are read, so a line that crosses from one part into the next is one core there, and is
neither cut nor found twice. Of where two parts overlap, each decides the half that lies deeper inside of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.input_shapes import STRIDE, Inputs, InputShape
from sluiceway_detection.letterbox import PADDING_GREY, Letterbox
from sluiceway_detection.types import ImageBgr

__all__ = ["Area", "Sheet", "content_at"]

# Pixels around what a part decides: a line has to be seen with what surrounds it. At most a quarter of an input.
CONTEXT_PX = 64
# Of a map whose numbers are bytes.
_FULL = 255

Area = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the scaled image; the outer corner."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Where one input lies in the scaled image, and the area that it decides."""

    left: int
    top: int
    input_shape: InputShape
    own: Area


class Sheet:
    """A scaled image, and its map as far as it is known.

    Args:
        image_bgr: uint8 [H, W, 3].
        content_shape: height and width to which it is scaled.
        inputs: of the model.
        image_size_px: longer side of an input; None takes the default.
        area: which part of it is to be looked at; None takes all of it.
        base: a map [h, w] of all of the image at another scale, from 0 to 1, which holds outside of that area.
    """

    def __init__(
        self,
        image_bgr: ImageBgr,
        content_shape: tuple[int, int],
        inputs: Inputs,
        image_size_px: int | None = None,
        *,
        area: Area | None = None,
        base: npt.NDArray[np.floating] | None = None,
    ) -> None:
        height, width = content_shape
        self._image = image_bgr
        self._whole = Letterbox(content_shape, (image_bgr.shape[0], image_bgr.shape[1]), content_shape, 0, 0)
        self._tiles = list(_tiles(area or (0, 0, width, height), content_shape, inputs, image_size_px))
        # Bytes: a map of many inputs is large, and nothing is decided by less than a part in 255.
        self._map = np.zeros(content_shape, np.uint8)
        if base is not None:
            cv2.resize(_bytes(base), (width, height), dst=self._map, interpolation=cv2.INTER_LINEAR)

    def draw(self) -> list[ImageBgr]:
        """The inputs, uint8 [h, w, 3] each."""
        scaled = self._whole.draw(self._image)
        return [_cut(scaled, tile) for tile in self._tiles]

    def join(self, outputs: Sequence[npt.NDArray[np.floating]]) -> npt.NDArray[np.uint8]:
        """The map of all of it, uint8 [1, H, W] from 0 to 255.

        Args:
            outputs: [1, h, w] from 0 to 1 of each input, in order. What is no number counts as no text.
        """
        for tile, output in zip(self._tiles, outputs, strict=True):
            left, top, right, bottom = tile.own
            part = output[0, top - tile.top : bottom - tile.top, left - tile.left : right - tile.left]
            self._map[top:bottom, left:right] = _bytes(part)
        return self._map[None]

    @property
    def letterbox(self) -> Letterbox:
        """How the image lies in that map."""
        return self._whole


def content_at(image_shape: tuple[int, int], scale: float, most_px: int) -> tuple[int, int]:
    """Height and width of an image at a scale, or as large as so many pixels allow."""
    scale = min(scale, math.sqrt(most_px / (image_shape[0] * image_shape[1])))
    height, width = (max(round(side * scale), 1) for side in image_shape)
    return height, width


def _tiles(area: Area, content_shape: tuple[int, int], inputs: Inputs, image_size_px: int | None) -> Iterator[_Tile]:
    left, top, right, bottom = area
    height, width = content_shape
    largest = inputs.largest(image_size_px)
    rows, tile_height = _along(top, bottom, height, largest[0], free=inputs.any_shape)
    columns, tile_width = _along(left, right, width, largest[1], free=inputs.any_shape)
    for y, own_top, own_bottom in rows:
        for x, own_left, own_right in columns:
            yield _Tile(x, y, (tile_height, tile_width), (own_left, own_top, own_right, own_bottom))


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


def _cut(scaled: ImageBgr, tile: _Tile) -> ImageBgr:
    height, width = tile.input_shape
    pixels = scaled[tile.top : tile.top + height, tile.left : tile.left + width]
    if pixels.shape[:2] == tile.input_shape:
        return np.ascontiguousarray(pixels)
    canvas = np.full((height, width, 3), PADDING_GREY, np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas


def _bytes(part: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    # A conversion of OpenCV's saturates, and makes 0 of what is no number.
    return np.asarray(cv2.convertScaleAbs(np.asarray(part, np.float32), alpha=_FULL), np.uint8)
