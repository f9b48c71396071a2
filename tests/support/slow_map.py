"""Regions of a map as plainly as they can be written: what the vectorised code is compared with.

Nothing here comes from the product or from OpenCV's outlines: pixels are flooded one by one, rectangles are tried along
every edge of the hull, and means are taken over a list of pixels.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["SlowRegion", "slow_regions"]

# (corners [4, 2], mean of the map, area), corners in pixels of the map counted from its corner.
SlowRegion = tuple[np.ndarray, float]


def slow_regions(
    map_: np.ndarray, threshold: float, confidence: float, unclip: float, least_side: float
) -> list[SlowRegion]:
    found = []
    for pixels in cores(map_ > threshold):
        centre, along, width, height = smallest_rectangle(pixels.astype(float))
        if min(width, height) < least_side:
            continue
        mean = mean_inside(map_, centre, along, width, height)
        if mean <= confidence:
            continue
        distance = width * height * unclip / (2 * (width + height))
        found.append((corners(centre, along, width + 2 * distance, height + 2 * distance) + 0.5, mean))
    return found


def cores(text: np.ndarray) -> list[np.ndarray]:
    """Pixels [n, 2] as x, y of everything that hangs together, over corners too."""
    left = {(int(x), int(y)) for y, x in np.argwhere(text)}
    found = []
    while left:
        waiting, core = [left.pop()], []
        while waiting:
            x, y = waiting.pop()
            core.append((x, y))
            for near in ((x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
        found.append(np.array(core))
    return found


def smallest_rectangle(points: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Centre, direction of the width, width and height: of all along an edge of the hull, the one of least area."""
    outline = hull(points)
    best = (math.inf, np.zeros(2), 0.0, 0.0, 0.0)
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        along = math.atan2(b[1] - a[1], b[0] - a[0])
        turn = np.array([[math.cos(along), math.sin(along)], [-math.sin(along), math.cos(along)]])
        turned = outline @ turn.T
        lower, upper = turned.min(axis=0), turned.max(axis=0)
        width, height = upper - lower
        if width * height < best[0] - 1e-9:
            best = (width * height, (lower + upper) / 2 @ turn, along, width, height)
    return best[1:]


def hull(points: np.ndarray) -> np.ndarray:
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return np.array(ordered)

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(kept) > 1:
                (x0, y0), (x1, y1) = kept[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept

    return np.array(half(ordered)[:-1] + half(ordered[::-1])[:-1])


def mean_inside(map_: np.ndarray, centre: np.ndarray, along: float, width: float, height: float) -> float:
    values = []
    reach = math.hypot(width, height) / 2 + 1
    rows, columns = (
        range(max(int(middle - reach), 0), min(int(middle + reach) + 1, size))
        for middle, size in zip(centre[::-1], map_.shape, strict=True)
    )
    for y in rows:
        for x in columns:
            right, down = x - centre[0], y - centre[1]
            across = right * math.cos(along) + down * math.sin(along)
            below = -right * math.sin(along) + down * math.cos(along)
            if abs(across) <= width / 2 + 0.01 and abs(below) <= height / 2 + 0.01:
                values.append(float(map_[y, x]))
    return sum(values) / len(values)


def corners(centre: np.ndarray, along: float, width: float, height: float) -> np.ndarray:
    right = np.array([math.cos(along), math.sin(along)]) * width / 2
    down = np.array([-math.sin(along), math.cos(along)]) * height / 2
    return np.array([centre - right - down, centre + right - down, centre + right + down, centre - right + down])
