"""Fit an image into the model's input: scale with the aspect ratio kept, centre, pad with grey.

The rounding is that of ultralytics' LetterBox and scale_boxes (a box must come back to the pixel it left), down to the
0.1 by which they break ties of odd paddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sluiceway_detection.inputs.shapes import Inputs, InputShape, scale_to_fit
from sluiceway_detection.types import ImageBgr, clip_boxes

__all__ = ["Letterbox"]

# Shrunk to this and less, pixels are averaged: a mixture of the nearest four would leave out most of them, and thin
# strokes with them.
AVERAGED_SCALE = 0.5
PADDING_GREY = 114  # the value that YOLO models are trained with
# So far an image's edge goes on for models that show images as they are: letters that touch it would end at grey, and
# are missed.
_EDGE_PX = 16


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How one image lies in one input; made by `fit`, so that both directions share their rounding.

    Attributes:
        input_shape: height and width of the model's input.
        image_shape: height and width of the original.
        content_shape: height and width of the scaled image inside the input.
        top_px: rows of padding above.
        left_px: columns of padding at the left.
        edges: the padding begins with the image's own edge, repeated.
    """

    input_shape: InputShape
    image_shape: tuple[int, int]
    content_shape: tuple[int, int]
    top_px: int
    left_px: int
    edges: bool = False

    @classmethod
    def fit(cls, image_shape: tuple[int, int], input_shape: InputShape, *, enlarge: bool = True) -> Letterbox:
        """Plan the placement; no pixels are touched.

        Args:
            image_shape: height and width of the image.
            input_shape: of the model.
            enlarge: whether a small image is enlarged until it fills the input.
        """
        scale = scale_to_fit(image_shape, input_shape)
        if not enlarge:
            scale = min(scale, 1.0)
        height, width = (max(round(side * scale), 1) for side in image_shape)
        top = round((input_shape[0] - height) / 2 - 0.1)
        left = round((input_shape[1] - width) / 2 - 0.1)
        return cls(input_shape, image_shape, (height, width), top, left, edges=not enlarge)

    @property
    def scale(self) -> float:
        """How large the image is shown: 1 is as it is."""
        return max(self.content_shape) / max(self.image_shape)

    @classmethod
    def place(cls, image_shape: tuple[int, int], inputs: Inputs, image_size_px: int | None = None) -> Letterbox:
        """Choose the input for an image, see `Inputs.shape_of`, and plan its placement there."""
        input_shape = inputs.shape_of(image_shape, image_size_px)
        if inputs.stretches:
            return cls(input_shape, image_shape, input_shape, 0, 0)
        return cls.fit(image_shape, input_shape, enlarge=inputs.enlarges)

    def draw(self, image_bgr: ImageBgr) -> ImageBgr:
        """Scale and pad: uint8 [h, w, 3] of `image_shape` to uint8 [H, W, 3] of `input_shape`, contiguous."""
        height, width = self.content_shape
        if self.content_shape != self.image_shape:
            image_bgr = _averaged(image_bgr, self.content_shape)
        if (height, width) == self.input_shape:
            if image_bgr.shape[:2] == self.input_shape:
                return image_bgr
            return np.asarray(cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        canvas = np.full((*self.input_shape, 3), PADDING_GREY, np.uint8)
        inside = canvas[self.top_px : self.top_px + height, self.left_px : self.left_px + width]
        if image_bgr.shape[:2] == self.content_shape:
            inside[...] = image_bgr
        else:
            # Resizing into the canvas itself saves the copy that padding afterwards would make.
            cv2.resize(image_bgr, (width, height), dst=inside, interpolation=cv2.INTER_LINEAR)
        if self.edges:
            self._repeat_edges(canvas)
        return canvas

    def _repeat_edges(self, canvas: ImageBgr) -> None:
        (height, width), top, left = self.content_shape, self.top_px, self.left_px
        bottom, right = top + height, left + width
        upper, lower = max(top - _EDGE_PX, 0), bottom + _EDGE_PX
        canvas[upper:top, left:right] = canvas[top, left:right]
        canvas[bottom:lower, left:right] = canvas[bottom - 1, left:right]
        canvas[upper:lower, max(left - _EDGE_PX, 0) : left] = canvas[upper:lower, left, None]
        canvas[upper:lower, right : right + _EDGE_PX] = canvas[upper:lower, right - 1, None]

    def inside(self, map_: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of an input, or of a map of it [H, W], that shows the image; a view."""
        height, width = self.content_shape
        return map_[self.top_px : self.top_px + height, self.left_px : self.left_px + width]

    @property
    def gains_xy(self) -> tuple[float, float]:
        """How large the image is shown, along x and along y."""
        return self.content_shape[1] / self.image_shape[1], self.content_shape[0] / self.image_shape[0]

    def points_to_image(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Bring points [..., 2], x and y, from the input's pixels to those of the original, clipped to it."""
        moved = (points - (self.left_px, self.top_px)) / self.gains_xy
        return np.asarray(np.clip(moved, 0, self.image_shape[::-1]))

    def to_image(self, boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring boxes [N, 4] from the input's pixels to those of the original, clipped to it."""
        gain_x, gain_y = self.gains_xy
        offset = np.array([self.left_px, self.top_px, self.left_px, self.top_px], np.float32)
        gain = np.array([gain_x, gain_y, gain_x, gain_y], np.float32)
        return clip_boxes((boxes_xyxy - offset) / gain, *self.image_shape)


def _averaged(image_bgr: ImageBgr, content_shape: tuple[int, int]) -> ImageBgr:
    """Shrink an image by the largest whole factor with which it is no smaller than its content, if that is 2 or more.

    Averaging whole blocks takes a third of the time of averaging fractions of pixels; what is left to shrink is less
    than half. The rows and columns that fill no block are left out: on the content that is less than a pixel.
    """
    factor = min(side // wanted for side, wanted in zip(image_bgr.shape[:2], content_shape, strict=True))
    if factor < 1 / AVERAGED_SCALE:
        return image_bgr
    height, width = (side // factor for side in image_bgr.shape[:2])
    blocks = image_bgr[: height * factor, : width * factor]
    return np.asarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
