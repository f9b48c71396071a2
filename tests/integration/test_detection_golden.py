"""Boxes of real models on real images equal those of ultralytics itself, recorded by golden/make.py.

Needs the weights and samples of the registry, which are pulled on the first run.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_answers import detections_of
from sluiceway_detection.backends.precision import cpu_has_bf16
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections
from sluiceway_detection.worker.handler import DetectionHandler, WorkerSettings, build
from sluiceway_runtime import weights
from sluiceway_runtime.pool import Payload, Placement

UNIT = Path(__file__).parents[1] / "unit" / "detection"
# Beside this threshold of the record, a rounding decides whether a box is there at all.
MARGIN = 0.01

MODELS = ["coco-v8n", "doclaynet-v8n", pytest.param("text-small", marks=pytest.mark.torch)]


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    samples = weights.pull_samples(["bus.jpg", "zidane.jpg", "page.png", "text.png"])
    paths = [*samples.values(), *(UNIT / "images").glob("*.jpg")]
    return {path.name: path.read_bytes() for path in paths}


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lower = np.maximum(a[:, None, :2], b[None, :, :2])
    upper = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(upper - lower, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common)


class Comparison:
    """Pairs every box with the one of the same class in the other set that overlaps it most."""

    def __init__(self, record: dict[str, Any], found: Detections) -> None:
        self.boxes = np.array(record["boxes"], np.float32).reshape(-1, 4)
        self.confidences = np.array(record["confidences"], np.float32)
        classes = np.array(record["class_ids"])
        same = classes[:, None] == found.class_ids[None]
        self.overlaps = np.where(same, overlaps(self.boxes, found.boxes_xyxy_px), 0)
        self.found = found

    def best(self, least: float) -> tuple[np.ndarray, np.ndarray]:
        """Best overlaps of the recorded boxes, and of the found ones, that are surely above a confidence."""
        recorded = self.overlaps[self.confidences > least + MARGIN]
        found = self.overlaps[:, self.found.confidences > least + MARGIN]
        return recorded.max(axis=1, initial=0), found.max(axis=0, initial=0)

    def shifts(self) -> np.ndarray:
        """Differences of confidence between pairs."""
        if self.overlaps.size == 0:
            return np.zeros(0)
        partner = self.overlaps.argmax(axis=1)
        paired = self.overlaps.max(axis=1) > 0.99
        return np.abs(self.confidences - self.found.confidences[partner])[paired]


def handler_of(model: str, backend: str, precision: Any) -> DetectionHandler:
    if not weights.is_available(model):
        weights.pull(model)
    found = weights.resolve(model, kind="detection")
    handler = build(WorkerSettings(weights=str(found.path), backend=backend, precision=precision).mapping())
    handler.setup(Placement(0, "cpu", None, 1))
    return handler


def compare(handler: DetectionHandler, model: str, images: dict[str, bytes]) -> Iterator[tuple[str, Comparison]]:
    golden = json.loads((UNIT / "golden" / f"{model}.json").read_text())
    assert len(golden["images"]) >= 6
    selection = Selection(golden["confidence"], golden["iou"], golden["max_detections"])
    for name, record in golden["images"].items():
        (result,) = handler.run([DetectionJob(selection).payload(images[name])])
        assert isinstance(result, Payload)
        yield name, Comparison(record, detections_of(result.meta))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("model", MODELS)
def test_f32_boxes_equal_ultralytics(model: str, backend: str, images: dict[str, bytes]) -> None:
    pairs = 0
    for name, comparison in compare(handler_of(model, backend, "f32"), model, images):
        recorded, found = comparison.best(0.05)
        assert (recorded > 0.99).all(), f"{name}: missing or moved: {recorded.min():.3f}"
        assert (found > 0.99).all(), f"{name}: too many: {found.min():.3f}"
        assert (comparison.shifts() < 0.01).all(), name
        pairs += len(recorded)
    assert pairs >= 10


@pytest.mark.parametrize("model", MODELS)
def test_bf16_boxes_stay_where_they_are(model: str, images: dict[str, bytes]) -> None:
    # OpenVINO computes in f32 there, whatever it is asked for, and the test would hold f32 against itself.
    if not cpu_has_bf16():
        pytest.skip("this CPU has no bf16")
    handler = handler_of(model, "openvino", "bf16")
    overlaps = []
    for _, comparison in compare(handler, model, images):
        # What is served by default; weaker boxes come and go with any rounding.
        overlaps.extend(comparison.best(0.25)[0])
    assert len(overlaps) >= 5
    assert np.mean(np.array(overlaps) > 0.8) >= 0.99
