"""The DB detectors of the registry beside a plain run of the same weights, its map read pixel by pixel."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont
from slow_map import slow_regions
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.backends.agreement import reference_image
from sluiceway_detection.backends.precision import cpu_has_bf16
from sluiceway_detection.crops.cutting import quad_of
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.thresholds import thresholds_of
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime import weights

MODELS = {"ppocrv6-tiny-det": 0.4, "ppocrv6-small-det": 0.45}
SHEET = (736, 640)  # width and height
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> weights.Weights:
    return weights.resolve(request.param, kind="detection", auto_pull=True)


def opened(model: weights.Weights, backend: Any = "openvino", precision: Any = "f32") -> ModelDetector:
    known = thresholds_of(model.path, model.metadata)
    return ModelDetector(open_backend(backend, BackendSpec(model.path, "cpu", 1, precision, known=known)))


def detect(detector: ModelDetector, model: weights.Weights, image: ImageBgr) -> Detections:
    (found,) = detector.detect([image], [DetectionJob(Selection(MODELS[model.name]))])
    return found


def page(degrees: float = 0) -> ImageBgr:
    """On a sheet that is large enough for all lines."""
    turn = cv2.getRotationMatrix2D((272, 208), degrees, 1)
    turn[:, 2] += (96, 112)
    sheet = cv2.warpAffine(reference_image((416, 544)), turn, SHEET, borderValue=(235, 235, 235))
    return np.asarray(sheet, np.uint8)


def plain_map(path: Path, image: ImageBgr) -> np.ndarray:
    """Of an image whose sides are multiples of 32 already."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    blob = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: blob})[0][0, 0])


def corners_of(found: Detections, row: int) -> np.ndarray:
    if row in found.shapes:
        return quad_of(found.shapes[row])
    x0, y0, x1, y1 = found.boxes_xyxy_px[row]
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def nearest(corners: np.ndarray, found: Detections) -> tuple[int, float]:
    """The region whose centre is nearest, and how far the farthest of its corners is."""
    centres = np.array([corners_of(found, row).mean(axis=0) for row in range(len(found))])
    row = int(np.linalg.norm(centres - corners.mean(axis=0), axis=1).argmin())
    apart = np.linalg.norm(corners_of(found, row)[:, None] - corners[None], axis=2).min(axis=1)
    return row, float(apart.max())


@pytest.mark.parametrize("degrees", [0, 12])
def test_regions_equal_those_of_the_plain_way(model: weights.Weights, degrees: float) -> None:
    image = page(degrees)
    expected = slow_regions(plain_map(model.path, image), 0.2, MODELS[model.name], 1.4, 3)
    found = detect(opened(model), model, image)
    assert len(found) == len(expected) >= 8
    for corners, mean in expected:
        row, apart = nearest(corners, found)
        # What is hardly turned is told as an upright box; rounding moves an outline by a pixel now and then.
        assert apart < 3
        assert found.confidences[row] == pytest.approx(mean, abs=0.02)
    if degrees:
        assert np.median([shape.angle_degrees for shape in found.shapes.values()]) == pytest.approx(-degrees, abs=1)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("onnx", "f32"),
        pytest.param(
            "openvino", "bf16", marks=pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 arithmetic")
        ),
    ],
)
def test_backends_and_arithmetics_agree(model: weights.Weights, backend: str, precision: str) -> None:
    image = cv2.resize(page(5), (700, 530))
    expected, found = detect(opened(model), model, image), detect(opened(model, backend, precision), model, image)
    assert len(found) == len(expected) >= 8
    for row in range(len(expected)):
        partner, apart = nearest(corners_of(expected, row), found)
        assert apart < 4
        assert found.confidences[partner] == pytest.approx(expected.confidences[row], abs=0.05)


def test_strips_and_tiny_pictures_have_lines(model: weights.Weights) -> None:
    detector = opened(model)
    strip = np.full((40, 3000, 3), 250, np.uint8)
    text = "lock 14 lets the water down, 42 litres " * 7
    cv2.putText(strip, text, (20, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (20, 20, 20), 2, cv2.LINE_AA)
    written = int(np.flatnonzero((strip < 100).any(axis=(0, 2))).max())
    boxes = detect(detector, model, strip).boxes_xyxy_px
    assert (boxes[:, 2] - boxes[:, 0]).sum() > 0.9 * written
    assert ((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])).max() < 65
    tiny = np.full((20, 60, 3), 250, np.uint8)
    cv2.putText(tiny, "Gate", (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    ((left, top, right, bottom),) = detect(detector, model, tiny).boxes_xyxy_px.tolist()
    assert left < 10
    assert right > 35
    assert bottom - top > 10


def test_small_print_on_a_large_image_is_found(model: weights.Weights) -> None:
    sheet, lines = Image.new("L", (4000, 1600), 245), 12
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row in range(lines):
        pen.text((900, 600 + 18 * row), "lock 14 lets the water down, 42 litres a day " * 4, fill=20, font=font)
    image = np.asarray(sheet.convert("RGB"))
    detector, wanted = opened(model), Selection(MODELS[model.name])
    (fast,), (auto,) = (detector.detect([image], [DetectionJob(wanted, scale=scale)]) for scale in ("fast", "auto"))
    rows = {round((top + bottom) / 2 - 607) // 18 for _, top, _, bottom in auto.boxes_xyxy_px.tolist()}
    assert len(fast) < lines / 2
    assert rows == set(range(lines))
    assert not auto.too_small
    # Lines, and not a paragraph.
    assert (auto.boxes_xyxy_px[:, 3] - auto.boxes_xyxy_px[:, 1]).max() < 30


def test_letters_that_touch_the_edges_of_a_picture_are_found(model: weights.Weights) -> None:
    picture = Image.new("L", (250, 60), 0)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for row in range(4):
        pen.text((0, 15 * row - 2), "[ 91,  2,  79, 179,  52, 205]"[:34], fill=200, font=font)
    boxes = detect(opened(model), model, np.asarray(picture.convert("RGB"))).boxes_xyxy_px
    # Not one of them was found without a margin.
    assert len(boxes) >= 3
