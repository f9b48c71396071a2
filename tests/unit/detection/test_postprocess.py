"""From raw outputs to boxes, against plain re-statements of the rules."""

import numpy as np
import pytest
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.selection import Selection
from sluiceway_detection.yolo.postprocess import select_classic, select_end_to_end, select_places, suppress

WHOLE = Letterbox.fit((640, 640), (640, 640))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def plain_suppression(boxes: np.ndarray, classes: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for row in range(len(boxes)):
        if all(classes[row] != classes[k] or iou(boxes[row], boxes[k]) <= threshold for k in kept):
            kept.append(row)
    return kept


def random_boxes(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    corner = generator.random((count, 2)) * 120
    return np.concatenate((corner, corner + 10 + generator.random((count, 2)) * 40), axis=1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.1, 0.45, 0.7])
@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 700])
def test_suppression_equals_the_plain_rule(count: int, threshold: float) -> None:
    boxes = random_boxes(count, seed=count)
    classes = (np.arange(count) % 3).astype(np.int32)
    kept = suppress(boxes, classes, threshold, at_most=10_000)
    assert kept.tolist() == plain_suppression(boxes, classes, threshold)
    assert suppress(boxes, classes, threshold, at_most=5).tolist() == kept[:5].tolist()


def test_boxes_without_area_do_not_divide_by_zero() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 9, 9]], np.float32)
    assert suppress(boxes, np.zeros(3, np.int32), 0.5, at_most=9).tolist() == [0, 1, 2]


def test_dense_suppression_stops_at_the_limit() -> None:
    # 30,000 candidates that do not touch: comparing all with all would take minutes.
    x, y = np.meshgrid(np.arange(173) * 10, np.arange(174) * 10)
    corner = np.stack((x.ravel(), y.ravel()), axis=1).astype(np.float32)
    boxes = np.concatenate((corner, corner + 5), axis=1)
    assert suppress(boxes, np.zeros(len(boxes), np.int32), 0.7, at_most=1000).tolist() == list(range(1000))


def classic(rows: list[tuple[float, ...]]) -> np.ndarray:
    return np.array(rows, np.float32).T


def test_a_classic_head_is_read() -> None:
    output = classic(
        [
            (100, 100, 40, 20, 0.2, 0.9),
            (101, 100, 40, 20, 0.1, 0.8),  # overlaps the first
            (101, 100, 40, 20, 0.85, 0.1),  # overlaps too, of another class
            (300, 300, 10, 10, 0.25, 0.0),  # not above the threshold
            (635, 635, 20, 20, 0.3, 0.26),  # reaches out of the image
        ]
    )
    found = select_classic(output, WHOLE, Selection())
    assert found.class_ids.tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.confidences, [0.9, 0.85, 0.3])
    np.testing.assert_allclose(found.boxes_xyxy_px, [[80, 90, 120, 110], [81, 90, 121, 110], [625, 625, 640, 640]])
    assert found.boxes_xyxy_px.dtype == np.float32


@pytest.mark.parametrize(
    ("selection", "confidences"),
    [
        (Selection(max_detections=1), [0.9]),
        (Selection(class_ids={1}), [0.9]),
        (Selection(class_ids={0}), [0.6]),
        (Selection(class_ids=frozenset()), []),
        (Selection(confidence=0.7), [0.9]),
        (Selection(confidence=0.95), []),
        (Selection(iou=1.0), [0.9, 0.8, 0.6]),
    ],
)
def test_options_of_a_classic_head(selection: Selection, confidences: list[float]) -> None:
    output = classic([(50, 50, 20, 20, 0, 0.9), (51, 50, 20, 20, 0, 0.8), (200, 200, 20, 20, 0.6, 0)])
    np.testing.assert_allclose(select_classic(output, WHOLE, selection).confidences, confidences)


def test_only_the_best_class_of_a_place_counts() -> None:
    # As in ultralytics' predict: a place whose best class is not wanted is not offered as its second best.
    output = classic([(50, 50, 20, 20, 0.6, 0.9)])
    assert len(select_classic(output, WHOLE, Selection(class_ids={0}))) == 0


def test_it_is_said_that_regions_were_left_out() -> None:
    places = [(50 + 90 * index, 50, 20, 20, 0.9 - 0.1 * index, 0.1) for index in range(4)]
    rows = np.array([[x - 10, y - 10, x + 10, y + 10, score, 0] for x, y, _, _, score, _ in places], np.float32)
    reduced = np.array([[*place[:5], 0] for place in places], np.float32).T
    for output, select in ((classic(places), select_classic), (rows, select_end_to_end), (reduced, select_places)):
        for most, left_out in ((3, True), (4, False), (5, False)):
            found = select(output, WHOLE, Selection(max_detections=most))
            assert (len(found), found.left_out) == (min(most, 4), left_out)


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(6))
def test_numbers_that_are_none_cost_only_their_own_place(bad: float, place: int) -> None:
    output = classic([(50, 50, 20, 20, 0.6, 0.1), (200, 200, 20, 20, 0.7, 0.1)])
    output[place, 0] = bad
    found = select_classic(output, WHOLE, Selection())
    assert 0.7 in np.round(found.confidences, 6)
    assert np.isfinite(found.boxes_xyxy_px).all()
    assert (found.confidences <= 1).all()


def test_nan_of_one_class_leaves_the_others_of_its_place() -> None:
    output = classic([(50, 50, 20, 20, np.nan, 0.8)])
    found = select_classic(output, WHOLE, Selection())
    assert found.class_ids.tolist() == [1]


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 1e38])
def test_an_output_that_is_all_nonsense_gives_sound_boxes(fill: float) -> None:
    for shape, select in (((6, 500), select_classic), ((300, 6), select_end_to_end)):
        found = select(np.full(shape, fill, np.float32), WHOLE, Selection())
        assert np.isfinite(found.boxes_xyxy_px).all()
        assert (found.boxes_xyxy_px[:, 2:] > found.boxes_xyxy_px[:, :2]).all()


def test_half_precision_outputs_are_taken() -> None:
    output = classic([(50, 50, 20, 20, 0.6, 0.1)]).astype(np.float16)
    assert select_classic(output, WHOLE, Selection()).boxes_xyxy_px.tolist() == [[40, 40, 60, 60]]


def test_an_nms_free_head_is_read() -> None:
    output = np.array(
        [
            (10, 10, 30, 30, 0.5, 0),
            (11, 10, 30, 30, 0.9, 0),  # nothing is suppressed again
            (50, 50, 70, 70, 0.8, 1),
            (50, 50, 50, 70, 0.8, 1),  # no width
            (0, 0, 9, 9, 0.25, 1),
            (0, 0, 9, 9, 0.7, np.nan),
            (0, 0, np.inf, 9, 0.7, 1),
            (0, 0, 9, 9, np.nan, 1),
        ],
        np.float32,
    )
    found = select_end_to_end(output, WHOLE, Selection())
    np.testing.assert_allclose(found.confidences, [0.9, 0.8, 0.5])
    assert found.class_ids.tolist() == [0, 1, 0]
    assert len(select_end_to_end(output, WHOLE, Selection(max_detections=2))) == 2
    assert select_end_to_end(output, WHOLE, Selection(class_ids={1})).class_ids.tolist() == [1]


def test_boxes_are_of_the_original_image() -> None:
    placed = Letterbox.fit((1080, 810), (640, 480))
    output = classic([(240, 320, 48, 64, 0.9)])
    np.testing.assert_allclose(
        select_classic(output, placed, Selection()).boxes_xyxy_px, [[364.5, 486, 445.5, 594]], rtol=1e-5
    )
