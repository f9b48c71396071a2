"""User classes behind the stage's interface, and the example."""

import sys
import types
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, Polygon, Region, RotatedBox
from sluiceway_detection.worker.detector import load_detector
from sluiceway_runtime.errors import StartupError

ROOT = Path(__file__).parents[3]
IMAGE = np.zeros((100, 200, 3), np.uint8)
ANY = DetectionJob(Selection(confidence=0.01))


class Good:
    classes = ("a", "b")
    answer: ClassVar[list[Region]] = []

    def setup(self, device: str) -> None:
        self.device = device

    def __call__(self, batch: list[np.ndarray]) -> list[list[Region]]:
        return [self.answer for _ in batch]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("users_own")
    monkeypatch.setitem(sys.modules, "users_own", made)
    made.Good = type("Good", (Good,), {})
    return made


def test_options_apply_to_what_a_users_class_returns(module: types.ModuleType) -> None:
    module.Good.answer = [
        Region((10, 10, 20, 20), 0, 0.3),
        Region((-5, 10, 500, 20), 1, 0.9),
        Region((10, 10, 20, 20), 7, 0.9),  # no such class
        Region((float("nan"), 10, 20, 20), 0, 0.9),
        Region((30, 30, 30, 40), 0, 0.9),  # no width
        Region((10, 10, 20, 20), 0, float("nan")),
        Region((10, 10, 20, 20), 0, 3.0),
        Region((10, 10, 20, 20), 0, 0.8, Polygon(((0, 0), (1, 1)))),  # no polygon
        Region((10, 10, 20, 20), 0, 0.7, RotatedBox((15, 15), 10, 5, 20)),
    ]
    engine = load_detector("users_own:Good", "cpu")
    assert engine.classes == ("a", "b")
    (found,) = engine.detect([IMAGE], [ANY])
    np.testing.assert_allclose(found.confidences, [1.0, 0.9, 0.7, 0.3])
    assert found.boxes_xyxy_px[1].tolist() == [0, 10, 200, 20]
    assert list(found.shapes) == [2]
    two, only_b, strong = engine.detect(
        [IMAGE] * 3,
        [
            DetectionJob(Selection(max_detections=2)),
            DetectionJob(Selection(class_ids={1})),
            DetectionJob(Selection(confidence=0.95)),
        ],
    )
    np.testing.assert_allclose(two.confidences, [1.0, 0.9])
    assert two.shapes == {}
    assert two.left_out
    assert not only_b.left_out
    assert only_b.class_ids.tolist() == [1]
    np.testing.assert_allclose(strong.confidences, [1.0])


def test_no_regions_are_a_result() -> None:
    assert len(Detections.from_regions([], 10, 10)) == 0


@pytest.mark.parametrize(
    ("answer", "message"), [([], "0 results for 1 images"), ([["x"]], "a str where a Region is due")]
)
def test_wrong_answers_name_the_fault(module: types.ModuleType, answer: list, message: str) -> None:
    module.Good.__call__ = lambda self, batch: answer
    with pytest.raises(TypeError, match=message):
        load_detector("users_own:Good", "cpu").detect([IMAGE], [ANY])


def broken_setup(self: object, device: str) -> None:
    raise ValueError("no such file")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"setup": broken_setup}, "setup failed: ValueError: no such file"),
        ({"setup": None}, r"needs setup\(device\)"),
        ({"classes": ()}, "`classes` must be"),
        ({"classes": (1, 2)}, "`classes` must be"),
        ({"classes": "text"}, "`classes` must be"),
        ({"classes": None}, "`classes` must be"),
        ({"__init__": lambda self, size: None}, "cannot be made: TypeError"),
    ],
)
def test_broken_classes_fail_the_start(module: types.ModuleType, attributes: dict, message: str) -> None:
    module.Bad = type("Bad", (Good,), attributes)
    with pytest.raises(StartupError, match=message):
        load_detector("users_own:Bad", "cpu")


@pytest.mark.parametrize("name", ["users_own:Missing", "no_such_module_at_all:X", "no-such-entry-point"])
def test_names_that_lead_nowhere(module: types.ModuleType, name: str) -> None:
    with pytest.raises(StartupError, match=name):
        load_detector(name, "cpu")


def test_the_example_finds_blobs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    page = np.full((120, 300, 3), 240, np.uint8)
    cv2.rectangle(page, (20, 20), (60, 50), (10, 10, 10), -1)
    cv2.putText(page, "word", (120, 80), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
    engine = load_detector("examples.detector:BlobDetector", "cpu")
    assert engine.classes == ("blob",)
    (found,) = engine.detect([page], [ANY])
    assert found.boxes_xyxy_px[0].tolist() == [20, 20, 61, 51]
    assert found.confidences[0] == 1
    assert len(found) == 2
    left, top, right, bottom = found.boxes_xyxy_px[1]
    assert 110 < left < 125
    assert right > 180
    assert 55 < top < bottom < 90
    assert "cpu" in capsys.readouterr().out
