"""What a model gives for an image, and which of the regions in it are wanted: the same for models of every family."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_CONFIDENCE", "DEFAULT_IOU", "Output", "Selection"]

Output = npt.NDArray[np.floating] | npt.NDArray[np.uint8] | tuple[npt.NDArray[np.floating], ...]
"""What a model gives for one image; several arrays if it has several outputs, and bytes alone if it is a map."""

# For models that do not say what they were calibrated for; ultralytics predicts with the same.
DEFAULT_CONFIDENCE = 0.25
DEFAULT_IOU = 0.7


class Selection(NamedTuple):
    """Which regions of an output are wanted.

    Attributes:
        confidence: a region must be above it.
        iou: overlap above which the weaker of two regions of one class goes.
        max_detections: at most so many, the most confident.
        class_ids: only these; None keeps all.
        agnostic: regions of different classes are compared, too.
    """

    confidence: float = DEFAULT_CONFIDENCE
    iou: float = DEFAULT_IOU
    max_detections: int = 1000
    class_ids: Collection[int] | None = None
    agnostic: bool = False
