"""Large letters are found at half the size, and whatever else there may be is looked at as usual."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from sluiceway_detection.db import MapReading
from sluiceway_detection.inputs.shapes import Inputs, InputShape
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime.images.scale import Scale

CARD = ModelCard(("text",), 32, False, (960, 960), False, map_reading=MapReading(0.5, 1.4))
USUAL, HALF = (608, 800), (320, 416)


class Dark:
    """A DB model whose map is how dark a pixel is."""

    name, precision, card = "openvino", "f32", CARD

    def __init__(self, *, any_shape: bool = True) -> None:
        self.inputs = Inputs((USUAL,), enlarges=False, any_shape=any_shape)
        self.shown: list[InputShape] = []

    def infer(self, images_bgr: Sequence[ImageBgr]) -> list[np.ndarray]:
        self.shown += [(image.shape[0], image.shape[1]) for image in images_bgr]
        return [(image.max(axis=2) < 125).astype(np.float32)[None] for image in images_bgr]


def look(model: Dark, image: ImageBgr, scale: Scale = "auto") -> Detections:
    (found,) = ModelDetector(model).detect([image], [DetectionJob(Selection(0.3), scale=scale)])
    return found


def sign(*, thick: int = 50) -> ImageBgr:
    image = np.full((600, 800, 3), 240, np.uint8)
    for top in (80, 240):
        image[top : top + thick, 100:700] = 10
    return image


def test_large_letters_take_a_quarter_of_the_pixels() -> None:
    model, image = Dark(), sign()
    found, usual = look(model, image), look(model, image, "fast")
    assert model.shown == [HALF, USUAL]
    assert len(found) == 2
    assert np.sort(found.boxes_xyxy_px, axis=0) == pytest.approx(np.sort(usual.boxes_xyxy_px, axis=0), abs=4)
    assert (found.scale, found.too_small) == (1, False), "nothing is given up"


def test_small_letters_are_looked_at_as_usual() -> None:
    model, image = Dark(), sign()
    image[500:512, 100:300] = 10
    found = look(model, image)
    assert model.shown == [HALF, USUAL]
    assert np.array_equal(found.boxes_xyxy_px, look(model, image, "fast").boxes_xyxy_px)
    assert len(found) == 3


def test_small_letters_of_turned_lines_are_looked_at_as_usual() -> None:
    model, image = Dark(), sign()
    cv2.line(image, (100, 450), (300, 500), (10, 10, 10), 14)
    assert len(look(model, image)) == 3
    assert model.shown == [HALF, USUAL]


def test_texture_without_a_line_is_looked_at_as_usual() -> None:
    model, image = Dark(), sign()
    # Print so small that nothing of it is found.
    image[400:500, 100:400] = cv2.resize(
        np.random.default_rng(4).integers(140, 256, (50, 150, 3), np.uint8), (300, 100), interpolation=cv2.INTER_NEAREST
    )
    found = look(model, image)
    assert model.shown == [HALF, USUAL]
    assert np.array_equal(found.boxes_xyxy_px, look(model, image, "fast").boxes_xyxy_px)


def test_nothing_at_all_is_looked_at_as_usual() -> None:
    model = Dark()
    assert len(look(model, np.full((600, 800, 3), 240, np.uint8))) == 0
    assert model.shown == [HALF, USUAL]


def test_photographs_and_small_images_are_looked_at_once() -> None:
    model = Dark()
    noise = np.random.default_rng(4).integers(0, 256, (150, 200, 3), np.uint8)
    look(model, cv2.resize(noise, (800, 600), interpolation=cv2.INTER_NEAREST))
    look(model, np.ascontiguousarray(sign()[:300, :600]))
    assert model.shown == [USUAL, (320, 608)]


def test_a_model_of_listed_shapes_has_no_smaller_one() -> None:
    model = Dark(any_shape=False)
    assert len(look(model, sign())) == 2
    assert model.shown == [USUAL]
