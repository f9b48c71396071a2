"""How images are looked at: once, in parts, and closer, with a DB model whose map is how dark a pixel is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from sluiceway_detection.db import MapReading
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime.images.scale import Scale

CARD = ModelCard(("text",), 32, False, (256, 256), False, map_reading=MapReading(0.5, 1.4))
INPUTS = [Inputs(((256, 256),), enlarges=False, any_shape=True), Inputs(((256, 256), (192, 256)), enlarges=False)]


class Dark:
    """Sees what is dark; what is less than three pixels high is gone, as strokes are for a network."""

    name, precision, card = "openvino", "f32", CARD

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.shown: list[list[tuple[int, ...]]] = []

    def infer(self, images_bgr: Sequence[ImageBgr]) -> list[np.ndarray]:
        self.shown.append([image.shape[:2] for image in images_bgr])
        return [self._map(image) for image in images_bgr]

    @staticmethod
    def _map(image: ImageBgr) -> np.ndarray:
        dark = (image.max(axis=2) < 125).astype(np.uint8)
        return np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 1), np.uint8))[None], np.float32)


def look(model: Dark, image: ImageBgr, scale: Scale) -> Detections:
    job = DetectionJob(Selection(0.3, max_detections=10_000), scale=scale)
    (found,) = ModelDetector(model).detect([image], [job])
    return found


def ruled(height: int, width: int, *, every: int, thick: int) -> ImageBgr:
    """Bars from margin to margin: lines of text, as this model sees them."""
    image = np.full((height, width, 3), 240, np.uint8)
    for top in range(every, height - every, every):
        image[top : top + thick, 20 : width - 20] = 10
    return image


@pytest.mark.parametrize("inputs", INPUTS, ids=["any", "listed"])
def test_no_line_is_cut_or_doubled_by_the_seams_of_parts(inputs: Inputs) -> None:
    image, model = ruled(600, 640, every=24, thick=12), Dark(inputs)
    found = look(model, image, 1.0)
    assert len(model.shown) == 1
    assert len(model.shown[0]) >= 9
    tops = np.sort(found.boxes_xyxy_px[:, 1])
    assert len(found) == 23
    assert all(apart == pytest.approx(24, abs=2) for apart in np.diff(tops))
    assert (found.boxes_xyxy_px[:, 2] - found.boxes_xyxy_px[:, 0]).min() > 590
    assert found.scale == 1
    assert not found.too_small


@pytest.mark.parametrize("inputs", INPUTS, ids=["any", "listed"])
def test_small_print_is_looked_at_once_more_and_large_print_is_not(inputs: Inputs) -> None:
    large, small = ruled(1024, 1024, every=80, thick=48), ruled(1024, 1024, every=32, thick=16)
    model = Dark(inputs)
    assert look(model, large, "auto").scale < 0.4
    assert len(model.shown) == 1
    model = Dark(inputs)
    found = look(model, small, "auto")
    assert len(model.shown) == 2
    assert len(found) == 30
    assert not found.too_small
    model = Dark(inputs)
    fast = look(model, small, "fast")
    assert len(model.shown) == 1
    assert fast.too_small


def test_a_part_alone_is_looked_at_and_the_rest_stays() -> None:
    image = np.full((1024, 1024, 3), 240, np.uint8)
    for top in range(40, 400, 92):
        image[top : top + 48, 40:860] = 10
    for top in range(600, 696, 32):
        image[top : top + 16, 100:300] = 10
    model = Dark(INPUTS[0])
    found = look(model, image, "auto")
    _, second = model.shown
    # All of it would take nine.
    assert len(second) <= 4
    boxes = found.boxes_xyxy_px[np.argsort(found.boxes_xyxy_px[:, 1])]
    assert len(boxes) == 7
    assert all(after[1] > before[1] for before, after in pairwise(boxes))
    # What is elsewhere was shown no larger than before.
    assert found.scale < 0.4


def test_what_one_image_costs_is_bounded_and_what_is_given_up_is_said() -> None:
    image = ruled(4000, 4000, every=24, thick=10)
    for scale in (4.0, 1.0):
        model = Dark(INPUTS[0])
        found = look(model, image, scale)
        pixels = sum(height * width for part in model.shown for height, width in part)
        # Ten squares of the image size, and what parts have in common.
        assert pixels < 10 * 256 * 256 * 4
        assert found.too_small
        assert found.scale < scale
    model = Dark(INPUTS[0])
    assert not look(model, image, 0.05).too_small
    assert model.shown == [[(224, 224)]]


def test_images_of_a_batch_are_looked_at_each_for_itself() -> None:
    images = [
        ruled(1024, 1024, every=32, thick=16),
        ruled(200, 250, every=40, thick=20),
        ruled(1024, 1024, every=80, thick=48),
    ]
    jobs = [DetectionJob(Selection(0.3), scale="auto")] * 3
    together = ModelDetector(Dark(INPUTS[0])).detect(images, jobs)
    for image, found in zip(images, together, strict=True):
        (alone,) = ModelDetector(Dark(INPUTS[0])).detect([image], jobs[:1])
        np.testing.assert_array_equal(found.boxes_xyxy_px, alone.boxes_xyxy_px)
        assert found.scale == alone.scale


def test_a_small_image_may_be_enlarged() -> None:
    found = look(Dark(INPUTS[0]), ruled(60, 100, every=12, thick=3), 4.0)
    assert len(found) == 3
    assert found.scale == 4
