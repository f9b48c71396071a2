"""A detector of one's own: finds dark blobs (ink, parts, holes) on a light background, without any model.

A plain class outside the project. It runs in the workers of the detection server when the configuration names it:

    [detection]
    detector = "detector:BlobDetector"      # module:Class; the module has to be importable by the server
"""

from __future__ import annotations

import cv2
import numpy as np
from sluiceway_detection.types import ImageBgr, Region

LEAST_SIDE_PX = 4
REACH_PX = 9  # parts that are closer than this are one blob, such as the letters of a word


class BlobDetector:
    """One class, `blob`; the confidence says how much of the box is dark."""

    classes = ("blob",)

    def setup(self, device: str) -> None:
        """Called once in each worker. A real detector loads its model here, to `device`."""
        self._brush = cv2.getStructuringElement(cv2.MORPH_RECT, (REACH_PX, REACH_PX))
        print(f"blob detector: nothing to load on {device}")

    def __call__(self, batch: list[ImageBgr]) -> list[list[Region]]:
        """Find the blobs of each image, uint8 [H, W, 3] BGR."""
        return [self._find(image) for image in batch]

    def _find(self, image: ImageBgr) -> list[Region]:
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        _, dark = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        joined = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, self._brush)
        _, _, statistics, _ = cv2.connectedComponentsWithStats(joined)
        regions = []
        for left, top, width, height, _ in statistics[1:].tolist():  # the first is the background
            if min(width, height) < LEAST_SIDE_PX:
                continue
            share = float(np.count_nonzero(dark[top : top + height, left : left + width])) / (width * height)
            # Even a thin outline counts as found: half for being there, half for how dark it is.
            regions.append(Region((left, top, left + width, top + height), 0, 0.5 + share / 2))
        return regions
