"""A model of upright boxes looks at parts of an image, and what it finds there is put together."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.models.thresholds import thresholds_of
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_detection.worker.looks import knows_scales
from sluiceway_detection.yolo.heads import Head
from sluiceway_runtime import weights
from sluiceway_runtime.images.scale import Scale

from benchmarks.pages import draw

SIDE = 256
INPUTS = Inputs(((SIDE, SIDE),))
END_TO_END, CLASSIC = (
    ModelCard(("word", "thing"), 32, end_to_end, (SIDE, SIDE), False, confidence=0.3) for end_to_end in (True, False)
)
PAPER, INK, PAINT = (240, 240, 240), (10, 10, 10), (10, 10, 250)


class Eyes:
    """Sees dark words and red things. Words lower than three pixels are gone, and those two pixels apart are one."""

    name, precision = "openvino", "f32"

    def __init__(self, card: ModelCard) -> None:
        self.card, self.inputs = card, INPUTS
        self.shown: list[int] = []

    def infer(self, images_bgr: Sequence[ImageBgr]) -> list[np.ndarray]:
        self.shown.append(len(images_bgr))
        return [self._rows(image) for image in images_bgr]

    def _rows(self, image: ImageBgr) -> np.ndarray:
        words = (image.max(axis=2) < 100).astype(np.uint8)
        words = cv2.morphologyEx(words, cv2.MORPH_OPEN, np.ones((3, 1), np.uint8))
        words = cv2.morphologyEx(words, cv2.MORPH_CLOSE, np.ones((1, 4), np.uint8))
        things = ((image[..., 2] > 150) & (image[..., 1] < 100)).astype(np.uint8)
        rows = []
        for kind, seen in enumerate((words, things)):
            _, _, stats, _ = cv2.connectedComponentsWithStats(seen)
            rows += [(x, y, x + w, y + h, 0.9, kind) for x, y, w, h, _ in stats[1:].tolist()]
        table = np.array(rows, np.float32).reshape(-1, 6)
        if self.card.end_to_end:
            return table
        sizes = table[:, 2:4] - table[:, :2]
        scores = np.where(table[:, 5:] == np.arange(2), 0.9, 0)
        return np.concatenate((table[:, :2] + sizes / 2, sizes, scores), axis=1).T.astype(np.float32)


def words(image: ImageBgr, *, width: int, height: int, across: int, down: int, area: tuple[int, int, int, int]) -> int:
    """Write words into an area, left, top, right, bottom; returns how many."""
    count = 0
    for top in range(area[1], area[3] - height, down):
        for left in range(area[0], area[2] - width, across):
            image[top : top + height, left : left + width] = INK
            count += 1
    return count


def sheet(height: int, width: int) -> ImageBgr:
    return np.full((height, width, 3), PAPER, np.uint8)


def look(model: Eyes, image: ImageBgr, scale: Scale, most: int = 10_000) -> Detections:
    (found,) = ModelDetector(model).detect([image], [DetectionJob(Selection(0.3, 0.5, most), scale=scale)])
    return found


@pytest.mark.parametrize("card", [END_TO_END, CLASSIC], ids=["end-to-end", "classic"])
def test_every_word_is_found_once_wherever_the_seams_are(card: ModelCard) -> None:
    image, model = sheet(600, 640), Eyes(card)
    count = words(image, width=90, height=12, across=101, down=17, area=(7, 5, 635, 595))
    found = look(model, image, 1.0)
    assert len(found) == count
    sizes = found.boxes_xyxy_px[:, 2:] - found.boxes_xyxy_px[:, :2]
    np.testing.assert_allclose(sizes, np.tile((90, 12), (count, 1)), atol=2)
    assert found.scale == 1
    assert not found.too_small


def test_words_that_run_together_in_a_look_at_the_whole_are_told_apart_in_parts() -> None:
    image, model = sheet(1000, 1000), Eyes(CLASSIC)
    count = words(image, width=60, height=14, across=70, down=30, area=(20, 20, 980, 980))
    assert len(look(model, image, "fast")) < count / 2
    found = look(model, image, "auto")
    assert len(found) == count
    assert found.boxes_xyxy_px[:, 0].min() == pytest.approx(20, abs=3)


def test_large_print_is_looked_at_once() -> None:
    image, model = sheet(1000, 1000), Eyes(CLASSIC)
    count = words(image, width=200, height=60, across=240, down=90, area=(20, 20, 980, 980))
    found = look(model, image, "auto")
    assert len(found) == count
    assert model.shown == [1]
    assert found.scale == pytest.approx(0.256)


def test_what_is_larger_than_a_part_is_the_look_at_the_wholes() -> None:
    image = sheet(1000, 1000)
    image[40:500, 100:900] = PAINT
    count = words(image, width=60, height=16, across=80, down=32, area=(20, 540, 980, 980))
    for scale in (1.0, "auto"):
        found = look(Eyes(CLASSIC), image, scale)
        assert (found.class_ids == 0).sum() == count
        (thing,) = found.boxes_xyxy_px[found.class_ids == 1]
        np.testing.assert_allclose(thing, (100, 40, 900, 500), atol=5)


def test_elsewhere_everything_stays() -> None:
    image, model = sheet(1000, 1000), Eyes(CLASSIC)
    large = words(image, width=200, height=60, across=240, down=90, area=(20, 20, 980, 500))
    small = words(image, width=40, height=16, across=60, down=32, area=(20, 600, 300, 750))
    found = look(model, image, "auto")
    assert len(found) == large + small
    first, second = model.shown
    assert first == 1
    # All of the image would take 25.
    assert second <= 9
    assert found.scale == pytest.approx(0.256)


def test_what_an_image_costs_is_bounded_and_what_is_given_up_is_said() -> None:
    image, model = sheet(4000, 4000), Eyes(CLASSIC)
    words(image, width=60, height=24, across=90, down=40, area=(20, 20, 3980, 3980))
    found = look(model, image, 4.0)
    assert sum(model.shown) < 10 * 4
    assert found.too_small
    assert look(Eyes(CLASSIC), image, 1.0, most=10).left_out
    model = Eyes(CLASSIC)
    assert not look(model, image, 0.05).too_small
    assert model.shown == [1]


def test_an_image_without_anything_is_no_fault() -> None:
    for scale in (1.0, "auto"):
        assert len(look(Eyes(CLASSIC), sheet(900, 900), scale)) == 0


def test_models_of_other_shapes_than_boxes_know_one_scale() -> None:
    assert knows_scales(CLASSIC)
    turned = ModelCard(("sign",), 32, False, (SIDE, SIDE), False, head=Head("obb", 1))
    assert not knows_scales(turned)
    assert not knows_scales(ModelCard(("sign",), 32, False, (SIDE, SIDE), False, head=Head(transformer="rows")))


def test_print_of_8_pt_on_a_page_is_found_word_by_word() -> None:
    found = weights.resolve("text-nano", kind="detection")
    spec = BackendSpec(found.path, "cpu", 1, "f32", known=thresholds_of(found.path, found.metadata))
    backend = open_backend("openvino", spec)
    card, detector = backend.card, ModelDetector(backend)
    page, words = draw(8, 1, None)
    selection = Selection(card.confidence or 0, card.iou or 0, 10_000)
    once, closer = (detector.detect([page], [DetectionJob(selection, scale=scale)])[0] for scale in ("fast", "auto"))
    assert len(once) < 0.93 * len(words)
    assert len(closer) == pytest.approx(len(words), rel=0.01)
