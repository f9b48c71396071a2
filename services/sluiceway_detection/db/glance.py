"""A look at half the size, which is enough for large letters: signs, posters and slides.

It takes a quarter of the time of the look that it spares. So it is made only where there is little texture, which pages
of print and photographs are full of, and counts only if all of that is explained by large lines. Print too small to be
found in it has texture at the usual size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sluiceway_detection.db.probe import LEAST_STEP, block_steps, unexplained
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import SHORTEST_PX, Inputs, natural_shape
from sluiceway_detection.types import Detections, ImageBgr, RotatedBox

__all__ = ["Glance"]

# Of the size at which an image is shown else; and pixels from which there is something to be spared.
_SCALE, _LEAST_PX = 0.5, 200_000
# Of the blocks of an image, those with texture: of signs up to a third, of pages and photographs half and more.
_MOST_TEXTURE = 0.4
# A region this high, as shown, is of letters that are found and told apart as well as any; three lines of print that is
# too small, which may be taken for one, are up to 22 pixels high.
_LEAST_HEIGHT_PX = 24.0
# Blocks of texture without a line, at the usual size: a short line of grey print has two. And how much more than most
# of the image they have, as grey print has little.
_LEAST_BLOCKS, _ABOVE_PAPER = 2, 2.0
# A region that is higher, as the image is shown else, may be a paragraph of small print.
_HIGHEST_PX = 128.0


class Glance:
    """An image at half the size at which it is shown else.

    Args:
        input_bgr: uint8 [h, w, 3], as it is shown.
        letterbox: of that input.
        usual_bgr: as it is shown else.
        usual: letterbox of that.

    Attributes:
        input_bgr: see above.
        letterbox: likewise.
    """

    def __init__(self, input_bgr: ImageBgr, letterbox: Letterbox, usual_bgr: ImageBgr, usual: Letterbox) -> None:
        self.input_bgr, self.letterbox = input_bgr, letterbox
        self._usual_bgr, self._usual = usual_bgr, usual

    @classmethod
    def of(cls, input_bgr: ImageBgr, letterbox: Letterbox, inputs: Inputs) -> Glance | None:
        """A glance, if large letters may be all that there is, and it spares something.

        Args:
            input_bgr: as the image is shown else.
            letterbox: likewise.
            inputs: of the model.
        """
        shown = letterbox.content_shape
        height, width = (round(side * _SCALE) for side in shown)
        if not inputs.any_shape or shown[0] * shown[1] < _LEAST_PX or min(height, width) < SHORTEST_PX:
            return None
        input_shape = natural_shape((height, width), max(letterbox.input_shape))
        top, left = (input_shape[0] - height) // 2, (input_shape[1] - width) // 2
        small = Letterbox(input_shape, shown, (height, width), top, left, edges=True)
        shown_bgr = small.draw(letterbox.inside(input_bgr))
        glance = cls(shown_bgr, replace(small, image_shape=letterbox.image_shape), input_bgr, letterbox)
        textured = block_steps(glance.input_bgr, glance.letterbox) >= LEAST_STEP
        return glance if np.count_nonzero(textured) <= _MOST_TEXTURE * textured.size else None

    def is_enough(self, found: Detections) -> bool:
        """Whether what was found in it, in pixels of the image, is all that there is."""
        boxes = found.boxes_xyxy_px
        heights = np.minimum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0])
        for row, shape in found.shapes.items():
            if isinstance(shape, RotatedBox):
                # The upright box around a line that is turned says nothing of its height.
                heights[row] = min(shape.width_px, shape.height_px)
        if not len(heights) or heights.min() * self.letterbox.scale < _LEAST_HEIGHT_PX:
            return False
        steps = block_steps(self._usual_bgr, self._usual)
        # Most of a sign is paper, and what that has is noise.
        textured = steps >= min(float(np.median(steps)) + _ABOVE_PAPER, LEAST_STEP)
        return len(unexplained(textured, self._usual, found, _HIGHEST_PX)) < _LEAST_BLOCKS
