"""A recogniser of your own: which colour is a region?

Put this file where Python finds it and name the class in `sluiceway.toml`, after the model that reads text, since the
first is the default. In this pipeline both look at every region of text:

    [[recognition.models]]
    name = "ppocrv6-tiny"

    [[recognition.models]]
    name = "colour"
    kind = "classify"
    recognizer = "recognizer:DominantColour"

    [pipelines.read]
    steps = [
      { name = "text", stage = "detection" },
      { name = "words", stage = "recognition", of = "text" },
      { name = "colours", stage = "recognition", of = "text", model = "colour" },
    ]

Crops for the model "colour" then come here, in the worker processes of the recognition server, cut and resized as
`crop_spec` says. There is nothing to inherit and nothing to register.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sluiceway_recognition.types import ClassReading, CropSpec, ResizeRule


class DominantColour:
    """Tells by how near each pixel is to a few named colours.

    Args:
        sharpness: how much more the nearest colour counts; set it with `options = { sharpness = 12.0 }`.
    """

    # 32 x 32 pixels, whatever the shape of the region: a colour does not mind being stretched.
    crop_spec = CropSpec(height=32, max_width=32, resize_rule=ResizeRule.STRETCH)
    labels = ("black", "white", "red", "green", "blue", "yellow")

    def __init__(self, sharpness: float = 8.0) -> None:
        self.sharpness = sharpness

    def setup(self, device: str) -> None:  # noqa: ARG002 - numpy computes on the CPU
        """Runs once in each worker: the place to load a model, on `cpu` or `cuda:0`."""
        self.colours_bgr = np.array(
            [[0, 0, 0], [255, 255, 255], [0, 0, 255], [0, 160, 0], [255, 0, 0], [0, 220, 255]], dtype=np.float32
        )

    def __call__(self, batch: list[NDArray[np.uint8]]) -> list[ClassReading]:
        """Each crop is uint8 [32, 32, 3], blue-green-red. Return one reading for each, in order."""
        readings = []
        for crop in batch:
            pixels = crop.reshape(-1, 1, 3).astype(np.float32)
            distances = np.linalg.norm(pixels - self.colours_bgr, axis=2) / 255
            votes = np.exp(-self.sharpness * distances)
            readings.append(ClassReading((votes / votes.sum(axis=1, keepdims=True)).mean(axis=0)))
        return readings
