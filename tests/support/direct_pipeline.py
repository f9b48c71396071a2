"""The two models called directly, in this process: what the cluster's answers are compared with.

Nothing here comes from the services, so an error in them cannot hide behind itself. It is also the baseline of the
overhead benchmark, and therefore as fast as a careful user would write it: compiled static shapes, the CPU's best
precision, pixels converted inside the graph, only the best class of each step taken out of it, and crops read side by
side where there are cores for it.
"""

from __future__ import annotations

import math
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import ColorFormat, PrePostProcessor

# What text-nano was calibrated for.
CONFIDENCE = 0.3
IOU = 0.3
# The sizes that the services bring pictures and crops to: part of what is compared, so written out once more.
INPUT_SHAPES = ((768, 768), (576, 768), (768, 576))
WIDTH_BUCKETS = (64, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 1920)
CROP_HEIGHT = 48
GREY = 114
# Of text-nano and text-small; the latter also finds pictures, which are not read.
TEXT_CLASS = 0


@dataclass(frozen=True)
class Region:
    """One region: box in image pixels, class and confidence of the detector, text and its mean confidence."""

    box: tuple[float, float, float, float]
    class_id: int
    confidence: float
    text: str | None = None
    text_confidence: float | None = None


class DirectPipeline:
    """Detector and recogniser as ONNX files.

    Args:
        detector: YOLO ONNX, classic head [1, 4 + classes, anchors] or NMS-free head [1, rows, 6].
        recogniser: PP-OCR ONNX, [1, 3, 48, W] to [1, T, characters].
        characters: text of each class; the first is the blank.
        precision: "bf16" or "f32".
        threads: compute threads of the detector.
        readers: crops that are read at a time, each by one thread.
    """

    def __init__(
        self,
        detector: Path,
        recogniser: Path,
        characters: list[str],
        *,
        precision: str,
        threads: int = 1,
        readers: int = 1,
    ) -> None:
        self._core = ov.Core()
        self._detector = self._core.read_model(detector)
        self._recogniser = self._core.read_model(recogniser)
        self._characters = characters
        options = {"INFERENCE_PRECISION_HINT": precision, "ENABLE_CPU_PINNING": False}
        self._detector_options = {**options, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._recogniser_options = {
            **options,
            "INFERENCE_NUM_THREADS": readers,
            "NUM_STREAMS": readers,
            # OpenVINO 2026.4's fused attention is wrong for some widths of PP-OCRv5 and v6 small.
            "SNIPPETS_MODE": "DISABLE",
        }
        self._detectors: dict[tuple[int, int], Any] = {}
        self._recognisers: dict[int, queue.SimpleQueue[Any]] = {}
        self._compiling = threading.Lock()
        self._readers = readers
        self._pool = ThreadPoolExecutor(readers, "reader")

    def __call__(self, file: bytes, confidence: float = CONFIDENCE, iou: float = IOU) -> list[Region]:
        """Read one image file; regions by falling confidence of the detector."""
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None

        def region(found: tuple[tuple[float, float, float, float], int, float]) -> Region:
            box, class_id, score = found
            if class_id != TEXT_CLASS:
                return Region(box, class_id, score)
            x0, y0 = math.floor(box[0]), math.floor(box[1])
            x1, y1 = min(math.ceil(box[2]), image.shape[1]), min(math.ceil(box[3]), image.shape[0])
            width = max(1, min(WIDTH_BUCKETS[-1], round((x1 - x0) * CROP_HEIGHT / (y1 - y0))))
            crop = cv2.resize(image[y0:y1, x0:x1], (width, CROP_HEIGHT), interpolation=cv2.INTER_LINEAR)
            return Region(box, class_id, score, *self.read(crop))

        found = self.detect(image, confidence, iou)
        # One reader needs no thread of its own.
        return list((self._pool.map if self._readers > 1 else map)(region, found))

    def detect(
        self, image: np.ndarray, confidence: float, iou: float
    ) -> list[tuple[tuple[float, float, float, float], int, float]]:
        """Boxes in image pixels, classes and confidences, by falling confidence."""
        height, width = image.shape[:2]
        scales = {shape: min(shape[0] / height, shape[1] / width) for shape in INPUT_SHAPES}
        roomy = [shape for shape, scale in scales.items() if scale >= 0.98 * max(scales.values())]
        shape = min(roomy, key=math.prod)
        inner = (round(height * scales[shape]), round(width * scales[shape]))
        top, left = round((shape[0] - inner[0]) / 2 - 0.1), round((shape[1] - inner[1]) / 2 - 0.1)
        canvas = np.full((1, *shape, 3), GREY, np.uint8)
        canvas[0, top : top + inner[0], left : left + inner[1]] = cv2.resize(
            image, (inner[1], inner[0]), interpolation=cv2.INTER_LINEAR
        )
        request = self._detectors.get(shape) or self._compile_detector(shape)
        output = request.infer({0: ov.Tensor(canvas, shared_memory=True)})[0][0]
        if output.shape[1] == 6:
            kept = output[output[:, 4] > confidence]
            boxes, scores, classes = kept[:, :4], kept[:, 4], kept[:, 5]
        else:
            best = output[4:].max(axis=0)
            found = np.flatnonzero(best > confidence)
            centre, size = output[:2, found].T, output[2:4, found].T
            boxes, scores = np.hstack((centre - size / 2, centre + size / 2)), best[found]
            classes = output[4:, found].argmax(axis=0)
            corners = np.hstack((boxes[:, :2], size))
            rows = cv2.dnn.NMSBoxesBatched(corners.tolist(), scores.tolist(), classes.tolist(), confidence, iou)
            boxes, scores, classes = boxes[rows], scores[rows], classes[rows]
        order = np.argsort(-scores, kind="stable")
        gain = np.array([inner[1] / width, inner[0] / height] * 2)
        boxes = (boxes[order] - np.array([left, top] * 2)) / gain
        boxes = boxes.clip(0, [width, height] * 2)
        return [
            (tuple(box), int(class_id), float(score))
            for box, class_id, score in zip(boxes.tolist(), classes[order], scores[order], strict=True)
        ]

    def read(self, crop: np.ndarray) -> tuple[str, float]:
        """Text of one crop uint8 [48, W, 3] BGR, and its mean confidence."""
        width = crop.shape[1]
        bucket = next(bucket for bucket in WIDTH_BUCKETS if bucket >= width)
        # Normalised first, padded with zeros after.
        tensor = np.zeros((1, 3, CROP_HEIGHT, bucket), np.float32)
        tensor[0, :, :, :width] = (crop.transpose(2, 0, 1) - np.float32(127.5)) * np.float32(1 / 127.5)
        requests = self._requests_for(bucket)
        request = requests.get()
        answer = request.infer({0: ov.Tensor(tensor, shared_memory=True)})
        confidences, steps = answer[0][0, :, 0].tolist(), answer[1][0, :, 0].tolist()
        requests.put(request)
        text, found = [], []
        before = 0
        for step, confidence in zip(steps, confidences, strict=True):
            if step not in (0, before):
                text.append(self._characters[step])
                found.append(confidence)
            before = step
        return "".join(text), sum(found) / len(found) if found else 0.0

    def _compile_detector(self, shape: tuple[int, int]) -> Any:
        model = self._detector.clone()
        model.reshape([1, 3, *shape])
        steps = PrePostProcessor(model)
        tensor = steps.input().tensor()
        tensor.set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
        compiled = self._core.compile_model(steps.build(), "CPU", self._detector_options)
        self._detectors[shape] = compiled.create_infer_request()
        return self._detectors[shape]

    def _requests_for(self, bucket: int) -> queue.SimpleQueue[Any]:
        """A request for each reader; whoever takes one puts it back."""
        with self._compiling:
            if bucket not in self._recognisers:
                self._recognisers[bucket] = queue.SimpleQueue()
                compiled = self._compile_recogniser(bucket)
                for _ in range(self._readers):
                    self._recognisers[bucket].put(compiled.create_infer_request())
            return self._recognisers[bucket]

    def _compile_recogniser(self, bucket: int) -> Any:
        model = self._recogniser.clone()
        model.reshape([1, 3, CROP_HEIGHT, bucket])
        probabilities = model.outputs[0].get_node().input_value(0)
        best = ops.topk(probabilities, ops.constant(1, dtype=np.int32), 2, "max", "none", index_element_type="i32")
        model = ov.Model([best.output(0), best.output(1)], model.get_parameters(), "recogniser")
        return self._core.compile_model(model, "CPU", self._recogniser_options)


def read_characters(inference_yml: Path) -> list[str]:
    """The class texts of PP-OCRv6 tiny: blank, then `character_dict`, then a space."""
    listing = False
    characters = [""]
    for line in inference_yml.read_text(encoding="utf-8").split("\n"):
        if line.strip() == "character_dict:":
            listing = True
        elif listing and line.lstrip().startswith("- "):
            characters.append(_scalar(line.lstrip()[2:]))
        elif listing:
            break
    return [*characters, " "]


def _scalar(text: str) -> str:
    """One YAML scalar as it stands in that list: plain, or in quotes."""
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].encode().decode("unicode_escape") if "\\" in text else text[1:-1]
    return text
