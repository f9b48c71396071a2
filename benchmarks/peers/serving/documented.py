"""The two models as the documentation of their libraries calls them: no thread is capped, nothing is pinned.

Detection is `YOLO(file).predict(image)` of ultralytics where the weights are a checkpoint, else ONNX Runtime as
ultralytics' own example for it has it. Recognition is ONNX Runtime, crop by crop; on a GPU it is the network in torch,
not compiled, all crops of an image that have a bucket in common at once.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from settings import Settings

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "services"), str(ROOT), str(ROOT / "tests" / "support")]

__all__ = ["Documented"]

CONFIDENCE, IOU = 0.3, 0.3  # what these weights were calibrated for
HEIGHT_PX, MAX_WIDTH_PX = 48, 1920
TEXT_CLASS = 0
Box = tuple[float, float, float, float]


class Documented:
    """From an image file to what stands in it."""

    def __init__(self, told: Settings) -> None:
        self._detect = _Ultralytics(told.detector) if told.detector.endswith(".pt") else _OnnxDetector(told.detector)
        self._read = _OnnxReader(told.recogniser) if told.device == "cpu" else _TorchReader(told)

    def __call__(self, file: bytes) -> list[str]:
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        crops = [_crop(image, box) for box in self._detect(image)]
        return [text for text in self._read(crops) if text]


def _crop(image: np.ndarray, box: Box) -> np.ndarray:
    x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x1, y1 = min(math.ceil(box[2]), image.shape[1]), min(math.ceil(box[3]), image.shape[0])
    width = max(1, min(MAX_WIDTH_PX, round((x1 - x0) * HEIGHT_PX / (y1 - y0))))
    return cv2.resize(image[y0:y1, x0:x1], (width, HEIGHT_PX))


class _Ultralytics:
    def __init__(self, file: str) -> None:
        from ultralytics import YOLO

        self._model = YOLO(file)

    def __call__(self, image: np.ndarray) -> list[Box]:
        (found,) = self._model.predict(image, conf=CONFIDENCE, iou=IOU, max_det=1000, device="cpu", verbose=False)
        kept = found.boxes.cls.cpu().numpy() == TEXT_CLASS
        return [tuple(box) for box in found.boxes.xyxy.cpu().numpy()[kept].tolist()]


class _OnnxDetector:
    def __init__(self, file: str) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (only,) = self._session.get_inputs()
        self._name = only.name
        meta = self._session.get_modelmeta().custom_metadata_map
        size = meta.get("imgsz", "[640, 640]").strip("[]").split(",")[-1]
        self._side = int(size)

    def __call__(self, image: np.ndarray) -> list[Box]:
        side = max(image.shape[:2])
        square = np.full((side, side, 3), 114, np.uint8)
        square[: image.shape[0], : image.shape[1]] = image
        blob = cv2.dnn.blobFromImage(square, 1 / 255, (self._side, self._side), swapRB=True)
        output = self._session.run(None, {self._name: blob})[0][0]
        scores = output[4:].max(axis=0)
        rows = np.flatnonzero((scores > CONFIDENCE) & (output[4:].argmax(axis=0) == TEXT_CLASS))
        corners = np.hstack((output[:2, rows].T - output[2:4, rows].T / 2, output[2:4, rows].T))
        kept = cv2.dnn.NMSBoxes(corners.tolist(), scores[rows].tolist(), CONFIDENCE, IOU)
        scale = side / self._side
        found = (corners[np.asarray(kept, int).reshape(-1)] * scale).tolist()
        return [(x, y, x + width, y + height) for x, y, width, height in found]


class _OnnxReader:
    def __init__(self, name: str) -> None:
        import onnxruntime
        from direct_pipeline import read_characters
        from sluiceway_runtime import weights

        found = weights.resolve(name, kind="recognition")
        self._session = onnxruntime.InferenceSession(str(found.path), providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        self._characters = read_characters(found.files["config"])

    def __call__(self, crops: list[np.ndarray]) -> list[str]:
        return [self._line(crop) for crop in crops]

    def _line(self, crop: np.ndarray) -> str:
        tensor = (crop.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5
        steps = self._session.run(None, {self._name: tensor})[0][0].argmax(axis=1)
        kept = [step for place, step in enumerate(steps) if step and (place == 0 or step != steps[place - 1])]
        return "".join(self._characters[step] for step in kept)


class _TorchReader:
    """The network as torch runs it. What makes text of its output is that of our recogniser."""

    def __init__(self, told: Settings) -> None:
        from engine import Models
        from sluiceway_recognition.worker.recognizer import load_model

        plan = Models(told.detector, told.recogniser).plan
        self._recognizer = load_model(plan, told.device, 1)
        self._recognizer.backend = _Eager(self._recognizer.backend, told.device)

    def __call__(self, crops: list[np.ndarray]) -> list[str]:
        return [found.text for found in self._recognizer.launch(crops, [1] * len(crops))()] if crops else []


class _Eager:
    """A backend that compiles and captures nothing."""

    def __init__(self, backend: Any, device: str) -> None:
        import torch

        self._backend, self._torch, self._device = backend, torch, torch.device(device)
        # The loader's own steps: what a program that loads these weights by itself would write.
        self._make = backend._source.recipe.make(self._device)  # noqa: SLF001
        self._shape = backend._shape  # noqa: SLF001
        self._modules: dict[tuple[int, int], Any] = {}

    def launch(self, crops: list[np.ndarray], width: int) -> Any:
        size = (len(crops), width)
        if size not in self._modules:
            self._modules[size] = self._make(self._shape(*size))
        pixels = np.zeros((*size[:1], HEIGHT_PX, width, 3), np.uint8)
        for row, crop in enumerate(crops):
            pixels[row, :, : crop.shape[1]] = crop
        widths = np.array([crop.shape[1] for crop in crops], np.int32)
        with self._torch.inference_mode():
            outputs = self._modules[size](
                self._torch.from_numpy(pixels).to(self._device), self._torch.from_numpy(widths).to(self._device)
            )
            found = tuple(output.cpu().numpy() for output in outputs)
        return lambda: found
