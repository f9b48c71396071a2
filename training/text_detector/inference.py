"""The detector as it is served, for measuring: letterbox, OpenVINO on the CPU, non-maximum suppression."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import openvino as ov

CONFIDENCE = 0.25
"""Least probability where a model's metadata names none; the served default too."""
IOU = 0.7
"""Overlap above which the weaker box goes, likewise."""


def letterbox(image_rgb: np.ndarray, height: int = 640, width: int = 640) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Fit a picture into the network's input, grey around it.

    Args:
        image_rgb: uint8 [H, W, 3].
    Returns:
        float32 [1, 3, height, width] in 0..1, the scale, and the offset (x, y) in pixels.
    """
    scale = min(width / image_rgb.shape[1], height / image_rgb.shape[0])
    size = (max(1, round(image_rgb.shape[1] * scale)), max(1, round(image_rgb.shape[0] * scale)))
    small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_LINEAR) if size != image_rgb.shape[1::-1] else image_rgb
    out = np.full((height, width, 3), 114, np.uint8)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    out[y : y + size[1], x : x + size[0]] = small
    return np.ascontiguousarray(out.transpose(2, 0, 1)[None], np.float32) / 255, scale, (x, y)


def suppress(raw: np.ndarray, confidence: float = CONFIDENCE, iou: float = IOU) -> np.ndarray:
    """Boxes from the classic head's output.

    Args:
        raw: float32 [1, 4 + classes, A]: centre x, centre y, width, height in input pixels, then class probabilities.
            Class 0 is text; others are ignored.
    Returns:
        float32 [N, 5]: x0, y0, x1, y1 in input pixels and the probability, best first. No limit on N.
    """
    rows = raw[0][:5, raw[0, 4] >= confidence].T
    corner = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], 1)
    keep = cv2.dnn.NMSBoxes(corner.tolist(), rows[:, 4].tolist(), confidence, iou)
    chosen = corner[np.asarray(keep, int).reshape(-1)]
    scores = rows[np.asarray(keep, int).reshape(-1), 4:5]
    return np.concatenate([chosen[:, :2], chosen[:, :2] + chosen[:, 2:], scores], 1).astype(np.float32)


class Detector:
    """An ONNX detector on one CPU thread, with the input size and the thresholds that its metadata names."""

    def __init__(
        self,
        path: Path,
        precision: str = "f32",
        *,
        size: tuple[int, int] | None = None,
        confidence: float | None = None,
        iou: float | None = None,
    ) -> None:
        """Compile; `size` (height, width), `confidence` and `iou` replace what the metadata says."""
        facts = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
        height, width = size or json.loads(facts.get("imgsz", "[640, 640]"))
        self.size = int(height), int(width)
        self.confidence = float(facts.get("confidence", CONFIDENCE)) if confidence is None else confidence
        self.iou = float(facts.get("iou", IOU)) if iou is None else iou
        core = ov.Core()
        model = core.read_model(path)
        model.reshape([1, 3, *self.size])
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", hints).create_infer_request()

    def raw(self, blob: np.ndarray) -> np.ndarray:
        """The network alone: float32 [1, 3, H, W] to [1, 4 + classes, A]."""
        self._request.infer([blob])
        return np.asarray(self._request.get_output_tensor(0).data)

    def detect(self, image_rgb: np.ndarray) -> np.ndarray:
        """Boxes of a picture: float32 [N, 5], pixels of the picture and the probability."""
        blob, scale, (x, y) = letterbox(image_rgb, *self.size)
        found = suppress(self.raw(blob), self.confidence, self.iou)
        found[:, :4] = (found[:, :4] - np.array([x, y, x, y], np.float32)) / scale
        limit = np.array([image_rgb.shape[1], image_rgb.shape[0]] * 2, np.float32)
        found[:, :4] = np.clip(found[:, :4], 0, limit)
        return found
