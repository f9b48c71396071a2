"""Sizes of a model's input: which ones to compile, and which one an image goes into."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["STRIDE", "InputShape", "choose_shape", "default_shapes", "scale_to_fit"]

InputShape = tuple[int, int]
"""Height and width of a model's input, in pixels."""

STRIDE = 32


def default_shapes(image_size_px: int) -> tuple[InputShape, ...]:
    """Square, and 4:3 both ways: photographs and pages then cost three quarters of the square."""
    short = round(image_size_px * 3 / 4 / STRIDE) * STRIDE
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


def scale_to_fit(image_shape: tuple[int, int], input_shape: InputShape) -> float:
    """The largest factor with which an image still lies inside an input."""
    return min(input_shape[0] / image_shape[0], input_shape[1] / image_shape[1])
