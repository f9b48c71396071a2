"""Places of an image where there may be print that is too small to leave a trace in a map.

They have the texture of small print, and nothing was found there: letters lower than five pixels leave no trace. A few
of them are shown to the model, side by side in one small input, and what it finds there decides.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.closer import AROUND_PX, GOOD_PX, Closer
from sluiceway_detection.inputs.letterbox import PADDING_GREY, Letterbox
from sluiceway_detection.inputs.shapes import InputShape
from sluiceway_detection.types import Detections, ImageBgr

__all__ = ["PROBED_SCALE", "Probe"]

FloatArray = npt.NDArray[np.floating]

# Of an image that is shown at more than this, letters that leave no trace are too low to be read anyway.
PROBED_SCALE = 0.5
# Places are looked for in squares of so many pixels as shown.
_BLOCK_PX = 32
# Mean step of brightness from one pixel to the next, the lesser of across and down: print of 3 pixels as shown has 8 to
# 25, paper less than 1, half of a photograph more.
_LEAST_STEP = 6.0
# A region that is higher explains nothing: a paragraph of letters too low may be taken for one.
_HIGHEST_BLOCKS = 1.5
# A single line of small print crosses so many.
_LEAST_BLOCKS = 4
# A probe shows places so much larger than the first look did, each in so many pixels of a square of its input.
_PROBE_SHAPE = (480, 640)
_PROBE_GAIN = 4.0
_PLACE_PX, _SHOWN_PX = 160, 144
# What is wider than so many times its height is a line, and no speck of something else.
_LINE_RATIO = 2.0


class Probe:
    """A few places of an image side by side, to see whether there is print that the first look could not show.

    Args:
        image_bgr: uint8 [H, W, 3].
        letterbox: how the first look showed it.
        blocks: float [N, 2], x and y of the middles of places in question, in pixels of the image.
        input_shape: of the model, where it takes no other; else None.

    Attributes:
        letterbox: of its input, as if that were an image.
    """

    def __init__(
        self, image_bgr: ImageBgr, letterbox: Letterbox, blocks: FloatArray, input_shape: InputShape | None = None
    ) -> None:
        self._image, self._blocks, self._shown = image_bgr, blocks, letterbox.scale
        self._scale = min(1.0, letterbox.scale * _PROBE_GAIN)
        shape = input_shape or _PROBE_SHAPE
        self._columns = min(shape[1], _PROBE_SHAPE[1]) // _PLACE_PX
        count = min(min(shape[0], _PROBE_SHAPE[0]) // _PLACE_PX * self._columns, len(blocks))
        # Evenly among all that are in question: they come row by row, so all parts of the image are among them.
        self._chosen = blocks[np.linspace(0, len(blocks) - 1, count).round().astype(int)]
        self.letterbox = Letterbox(shape, shape, shape, 0, 0)

    @classmethod
    def of(
        cls,
        image_bgr: ImageBgr,
        input_bgr: ImageBgr,
        letterbox: Letterbox,
        found: Detections,
        input_shape: InputShape | None = None,
    ) -> Probe | None:
        """A probe, if there is anything to be seen where nothing was found.

        Args:
            image_bgr: uint8 [H, W, 3].
            input_bgr: as the first look showed it.
            letterbox: likewise.
            found: by the first look.
            input_shape: of the model, where it takes no other.
        """
        if letterbox.scale >= PROBED_SCALE:
            return None
        if input_shape is not None and min(input_shape) < _PLACE_PX:
            return None
        blocks = _unexplained(input_bgr, letterbox, found)
        return cls(image_bgr, letterbox, blocks, input_shape) if len(blocks) >= _LEAST_BLOCKS else None

    def draw(self) -> ImageBgr:
        """The input, uint8 [h, w, 3]."""
        canvas = np.full((*self.letterbox.input_shape, 3), PADDING_GREY, np.uint8)
        side = round(_SHOWN_PX / self._scale)
        height, width = self._image.shape[:2]
        for number, (x, y) in enumerate(self._chosen.tolist()):
            left, top = (max(min(round(at - side / 2), end - side), 0) for at, end in ((x, width), (y, height)))
            pixels = self._image[top : top + side, left : left + side]
            down, across = (max(min(round(length * self._scale), _SHOWN_PX), 1) for length in pixels.shape[:2])
            row, column = (place * _PLACE_PX for place in divmod(number, self._columns))
            inside = canvas[row : row + down, column : column + across]
            inside[...] = cv2.resize(pixels, (across, down), interpolation=cv2.INTER_AREA)
        return canvas

    def judge(self, found: Detections) -> Closer | None:
        """What has to be looked at, by what was found in its input."""
        boxes = found.boxes_xyxy_px
        heights = np.minimum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0])
        lines = np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) > _LINE_RATIO * heights
        if not lines.any():
            return None
        places = ((boxes[lines, :2] + boxes[lines, 2:]) // (2 * _PLACE_PX)).astype(int)
        numbers = np.unique(places[:, 1] * self._columns + places[:, 0])
        apart = np.linalg.norm(self._blocks[:, None] - self._chosen[None], axis=2)
        print_ = self._blocks[np.isin(apart.argmin(axis=1), numbers)]
        around = (_BLOCK_PX / 2 + AROUND_PX) / self._shown
        area = (*(print_.min(axis=0) - around).tolist(), *(print_.max(axis=0) + around).tolist())
        return Closer(self._scale * GOOD_PX / float(np.percentile(heights[lines], 25)), area)


def _unexplained(input_bgr: ImageBgr, letterbox: Letterbox, found: Detections) -> FloatArray:
    """Middles of the blocks that have texture both ways and no line in them, row by row, in pixels of the image."""
    height, width = letterbox.content_shape
    grey = cv2.cvtColor(letterbox.inside(input_bgr), cv2.COLOR_BGR2GRAY)
    rows, columns = height // _BLOCK_PX, width // _BLOCK_PX
    if not rows or not columns:
        return np.empty((0, 2))
    grey = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    # A rule or the edge of a picture has steps in one direction alone.
    across, down = cv2.absdiff(grey[:, 1:], grey[:, :-1]), cv2.absdiff(grey[1:], grey[:-1])
    size = (columns, rows)
    step = np.minimum(*(cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (across, down)))
    boxes = found.boxes_xyxy_px * (letterbox.scale / _BLOCK_PX)
    lower = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) <= _HIGHEST_BLOCKS
    empty = ~_covered(boxes[lower], rows, columns)
    return np.argwhere((step >= _LEAST_STEP) & empty)[:, ::-1] * float(_BLOCK_PX / letterbox.scale) + (
        _BLOCK_PX / 2 / letterbox.scale
    )


def _covered(boxes: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """[rows, columns]: in which blocks of one unit there is a part of a box."""
    begin = np.floor(boxes[:, :2]).astype(int)
    end = np.ceil(boxes[:, 2:]).astype(int)
    counts = np.zeros((max(rows, 1) + 2, max(columns, 1) + 2), np.int32)
    x0, x1 = (np.clip(side[:, 0], 0, columns + 1) for side in (begin, end))
    y0, y1 = (np.clip(side[:, 1], 0, rows + 1) for side in (begin, end))
    for y, x, change in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(counts, (y, x), change)
    covered: npt.NDArray[np.bool_] = counts.cumsum(axis=0).cumsum(axis=1)[:rows, :columns] > 0
    return covered
