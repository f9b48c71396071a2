"""A recogniser that costs nothing: what is left of a server around it is the wire."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sluiceway_recognition.types import CropSpec, TextReading

__all__ = ["InstantRecogniser"]


class InstantRecogniser:
    """Reads the same word in every crop, without looking."""

    crop_spec = CropSpec(height=48, max_width=1920)
    buckets = (64, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 1920)

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def __call__(self, batch: list[NDArray[np.uint8]]) -> list[TextReading]:
        """One reading for each crop."""
        return [TextReading("sluiceway", (0.9,) * 9)] * len(batch)
