"""Sizes of a model's input: which ones to compile, and which one an image goes into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["STRIDE", "InputShape", "Inputs", "choose_shape", "default_shapes", "natural_shape", "scale_to_fit"]

InputShape = tuple[int, int]
"""Height and width of a model's input, in pixels."""

STRIDE = 32
# Of an input of any shape. Below it a model of that kind sees too little of what surrounds a line.
SHORTEST_PX = 64
# An image that is lower or narrower is often cut out along its letters. It is shown with a margin: on a picture of
# 250 x 60 nothing was found without one.
TIGHT_PX, MARGIN_PX = 128, 16


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a model, and how images are shown in them.

    Attributes:
        shapes: at least one, the first of the default size. With `any_shape` a usual one, which limits all others.
        enlarges: a small image is enlarged until it fills its input; else it is padded.
        any_shape: the input is made for the image, see `natural_shape`; `shapes` are not the only ones.
        stretches: an image fills its input, whatever its aspect ratio.
    """

    shapes: tuple[InputShape, ...]
    enlarges: bool = True
    any_shape: bool = False
    stretches: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Longer sides, the default first."""
        return tuple(dict.fromkeys(max(shape) for shape in self.shapes))

    def shape_of(self, image_shape: tuple[int, int], image_size_px: int | None = None) -> InputShape:
        """The input that an image is shown in.

        Args:
            image_shape: its height and width.
            image_size_px: longer side that its request wants, one of `sizes`; None takes the first.
        """
        size = image_size_px or max(self.shapes[0])
        if self.any_shape:
            return natural_shape(image_shape, size)
        return choose_shape(image_shape, [shape for shape in self.shapes if max(shape) == size])

    def largest(self, image_size_px: int | None = None) -> InputShape:
        """The largest input of a size, in which a part of an image is shown."""
        size = image_size_px or max(self.shapes[0])
        if self.any_shape:
            return size, size
        return max((shape for shape in self.shapes if max(shape) == size), key=lambda shape: shape[0] * shape[1])


def default_shapes(image_size_px: int) -> tuple[InputShape, ...]:
    """Square, and 4:3 both ways: photographs and pages then cost three quarters of the square."""
    # A half up: of 960 pixels the shorter side is 736, in which 4:3 fits as it does in the square.
    short = int(image_size_px * 3 / 4 / STRIDE + 0.5) * STRIDE
    square = (image_size_px, image_size_px)
    if short in (0, image_size_px):
        return (square,)
    return (square, (short, image_size_px), (image_size_px, short))


def choose_shape(image_shape: tuple[int, int], shapes: Sequence[InputShape]) -> InputShape:
    """The smallest shape that shows the image as large as any of them does.

    Args:
        image_shape: height and width of the image.
        shapes: at least one.
    """
    scales = [scale_to_fit(image_shape, shape) for shape in shapes]
    # A loss of up to 2% of scale is less than the rounding of strides, and saves a quarter of the computing.
    enough = max(scales) * 0.98
    large = [shape for shape, scale in zip(shapes, scales, strict=True) if scale >= enough]
    return min(large, key=lambda shape: shape[0] * shape[1])


def natural_shape(image_shape: tuple[int, int], longest_px: int) -> InputShape:
    """The input that shows an image as it is, or shrunk so far that its longer side is at most `longest_px`.

    A strip is not shrunk so far that its letters vanish: its shorter side stays at `SHORTEST_PX` or as it is, as long
    as the input has no more pixels than the square of `longest_px`.

    Args:
        image_shape: height and width of the image.
        longest_px: a multiple of `STRIDE`.
    """
    shortest_px = min(SHORTEST_PX, longest_px)
    short, long = min(image_shape), max(image_shape)
    scale = min(1.0, longest_px / long)
    if short * scale < shortest_px:
        scale = min(1.0, shortest_px / short, longest_px * longest_px / shortest_px / long)
    shown = [max(round(side * scale), shortest_px) for side in image_shape]
    if scale == 1 and short < TIGHT_PX:
        roomy = [max(side + 2 * MARGIN_PX, shortest_px) for side in image_shape]
        if roomy[0] * roomy[1] <= longest_px * longest_px:
            shown = roomy
    height, width = (-(-side // STRIDE) * STRIDE for side in shown)
    return height, width


def scale_to_fit(image_shape: tuple[int, int], input_shape: InputShape) -> float:
    """The largest factor with which an image still lies inside an input."""
    return min(input_shape[0] / image_shape[0], input_shape[1] / image_shape[1])
