"""Boxes, and homographies from the pixels of a crop to those of the page. Pure, and without numpy."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["IDENTITY", "Box", "Matrix", "TurnedBox", "apply", "chain", "is_upright"]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels."""


class TurnedBox(NamedTuple):
    """A rectangle turned about its centre; pixels, degrees clockwise."""

    x: float
    y: float
    width: float
    height: float
    angle_degrees: float


Matrix = tuple[float, ...]
"""Nine numbers, row by row."""

IDENTITY: Matrix = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def chain(outer: Matrix, inner: Matrix) -> Matrix:
    """What `inner` does and then `outer`: for a crop of a crop."""
    a, b, c, d, e, f, g, h, i = outer
    j, k, m, n, o, p, q, r, s = inner
    return (
        a * j + b * n + c * q, a * k + b * o + c * r, a * m + b * p + c * s,
        d * j + e * n + f * q, d * k + e * o + f * r, d * m + e * p + f * s,
        g * j + h * n + i * q, g * k + h * o + i * r, g * m + h * p + i * s,
    )  # fmt: skip


def apply(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Where a point comes to lie."""
    a, b, c, d, e, f, g, h, i = matrix
    w = g * x + h * y + i
    # A point on the horizon lies nowhere; detectors name points inside the crop, whose images are finite.
    w = w or 1e-9
    return (a * x + b * y + c) / w, (d * x + e * y + f) / w


def is_upright(matrix: Matrix) -> bool:
    """Whether upright boxes stay upright: it only scales, without mirroring, and moves."""
    a, b, _, d, e, _, g, h, _ = matrix
    return not (b or d or g or h) and a > 0 and e > 0
