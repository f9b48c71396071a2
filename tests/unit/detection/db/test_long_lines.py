"""Lines that no recogniser takes whole."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sluiceway_detection.db import divide_long_lines
from sluiceway_detection.types import Detections, RotatedBox

HEIGHT, WIDTH = 30, 3000
# Left edges of gaps of 14 pixels between words of any length.
GAPS = [90, 260, 330, 610, 700, 900, 1130, 1400, 1560, 1777, 1950, 2222, 2300, 2600, 2790]


def strip() -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    for x in range(4, WIDTH - 4, 6):
        cv2.line(image, (x, 5), (x, 25), (20, 20, 20), 2)
    for gap in GAPS:
        image[:, gap : gap + 14] = 250
    return image


def detections(box: tuple[float, ...], *shapes: RotatedBox | None) -> Detections:
    count = len(shapes) or 1
    return Detections(
        np.array([box] * count, np.float32),
        np.zeros(count, np.int32),
        np.linspace(0.9, 0.8, count, dtype=np.float32),
        {row: shape for row, shape in enumerate(shapes) if shape is not None},
    )


def in_a_gap(x: float) -> bool:
    return any(gap <= x <= gap + 14 for gap in GAPS)


def test_a_strip_is_divided_in_gaps() -> None:
    found = divide_long_lines(strip(), detections((0, 0, WIDTH, HEIGHT)))
    assert len(found) == 3
    assert found.shapes == {}
    boxes = found.boxes_xyxy_px
    assert boxes[0, 0] == 0
    assert boxes[-1, 2] == pytest.approx(WIDTH)
    np.testing.assert_allclose(boxes[1:, 0], boxes[:-1, 2], atol=0.01)
    assert all(in_a_gap(float(x)) for x in boxes[1:, 0])
    assert (np.diff(boxes[:, [0, 2]], axis=1) / HEIGHT < 60).all()
    assert (found.confidences == found.confidences[0]).all()
    assert not found.left_out
    assert divide_long_lines(strip(), replace(detections((0, 0, WIDTH, HEIGHT)), left_out=True)).left_out


def test_what_is_short_enough_stays_as_it_is() -> None:
    found = detections((0, 0, 60 * HEIGHT - 10, HEIGHT), None, RotatedBox((400, 15), 700, 20, 30))
    assert divide_long_lines(strip(), found) is found


def test_a_turned_line_is_divided_along_its_direction() -> None:
    degrees = 20.0
    turn = cv2.getRotationMatrix2D((0, 0), -degrees, 1)
    turn[:, 2] += (20, 10)
    image = cv2.warpAffine(strip(), turn, (2900, 1100), borderValue=(250, 250, 250))
    centre = tuple(turn @ (WIDTH / 2, HEIGHT / 2, 1))
    line = RotatedBox(centre, WIDTH, HEIGHT, degrees)
    other = RotatedBox((100, 100), 50, 10, 5)
    found = divide_long_lines(image, detections((0, 0, 2900, 1100), other, line, None))
    assert len(found) == 5
    assert found.shapes[0] == other
    assert 4 not in found.shapes
    parts = [found.shapes[row] for row in (1, 2, 3)]
    assert all(isinstance(part, RotatedBox) and part.angle_degrees == degrees for part in parts)
    back = cv2.invertAffineTransform(turn)
    right = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    for part in parts[:-1]:
        end = np.array(part.center_xy_px) + right * part.width_px / 2
        x, y = back @ (*end, 1)
        assert in_a_gap(float(x))
        assert y == pytest.approx(HEIGHT / 2, abs=0.5)
    assert sum(part.width_px for part in parts) == pytest.approx(WIDTH)


def test_without_any_gap_it_is_divided_evenly() -> None:
    found = divide_long_lines(np.full((20, 2000, 3), 128, np.uint8), detections((0, 0, 2000, 20)))
    np.testing.assert_allclose(found.boxes_xyxy_px[:, 2], [2000 / 3, 4000 / 3, 2000], atol=2)
