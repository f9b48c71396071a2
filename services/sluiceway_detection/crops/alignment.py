"""Crops whose keypoints lie where a recogniser wants them: eyes of faces, corners of number plates."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["aligned_quad"]

_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
# Keypoints that are almost one would ask for corners anywhere.
_FARTHEST_PX = 1e5
_LEAST_SPREAD = 1e-9


def aligned_quad(
    keypoints: npt.NDArray[np.float32], wanted: Sequence[tuple[float, float]], size: tuple[int, int]
) -> npt.NDArray[np.float32] | None:
    """The four corners of a crop in the image, so that keypoints lie in the crop where they are wanted.

    Four of them are straightened exactly; fewer or more are turned, moved and scaled to the least squares of what is
    left between them (Umeyama 1991), as faces are aligned for recognition.

    Args:
        keypoints: float32 [K, 3], x, y and confidence; in pixels of the image.
        wanted: x and y of each, in parts of the crop's width and height.
        size: height and width of the crop.

    Returns:
        float32 [4, 2], from the top left one clockwise; None where there are not as many keypoints, or where no crop
        would have them there.
    """
    if len(wanted) != len(keypoints):
        return None
    points, target = keypoints[:, :2].astype(np.float64), np.array(wanted, np.float64)
    if len(points) == 4:
        matrix = cv2.getPerspectiveTransform(target.astype(np.float32), points.astype(np.float32))
    else:
        # In the crop's proportions, which a similarity keeps.
        scale = (size[1], size[0])
        matrix = _similarity(target * scale, points) @ np.diag((*scale, 1.0))
    corners = np.c_[_CORNERS, np.ones(4)] @ matrix.T
    if not np.isfinite(corners).all() or not (corners[:, 2] > 0).all():
        return None
    quad = (corners[:, :2] / corners[:, 2:]).astype(np.float32)
    return quad if np.abs(quad).max() < _FARTHEST_PX else None


def _similarity(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turning, scaling and moving [3, 3] that takes points [K, 2] as near as may be to others."""
    before, after = source.mean(axis=0), target.mean(axis=0)
    a, b = source - before, target - after
    spread = max(float((a * a).sum()), _LEAST_SPREAD)
    cos, sin = (a * b).sum() / spread, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, after - turn @ before
    return matrix
