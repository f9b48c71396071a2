"""What a detection worker answered, as the arrays that it computed."""

from __future__ import annotations

import numpy as np
from sluiceway_detection.job import DetectionAnswer
from sluiceway_detection.types import Detections

__all__ = ["detections_of"]


def detections_of(answer: DetectionAnswer) -> Detections:
    """Boxes, classes and confidences."""
    return Detections(
        np.frombuffer(answer.boxes_xyxy_px, np.float32).reshape(-1, 4),
        np.frombuffer(answer.class_ids, np.int32),
        np.frombuffer(answer.confidences, np.float32),
        dict(answer.shapes),
    )
