"""From maps to regions, beside the same written plainly."""

import math

import cv2
import numpy as np
import pytest
from slow_map import slow_regions
from sluiceway_detection.crops.cutting import quad_of
from sluiceway_detection.db import MapReading, select_map
from sluiceway_detection.db.regions import MAX_CANDIDATES
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, RotatedBox

READING = MapReading(0.2, 1.4)
ANY = Selection(0.4, max_detections=10_000)


def whole(map_: np.ndarray) -> Letterbox:
    return Letterbox(map_.shape, map_.shape, map_.shape, 0, 0)


def regions(map_: np.ndarray, selection: Selection = ANY, reading: MapReading = READING) -> Detections:
    return select_map(map_[None], whole(map_), selection, reading)


def line(
    map_: np.ndarray, centre: tuple[float, float], width: float, height: float, degrees: float, value: float = 0.9
):
    corners = cv2.boxPoints((centre, (width, height), degrees))
    cv2.fillConvexPoly(map_, np.round(corners * 16).astype(np.int32), value, shift=4)


def scattered(seed: int) -> np.ndarray:
    """Lines of any turn with soft edges, some faint or thin, among specks."""
    random = np.random.default_rng(seed)
    map_ = np.zeros((160, 220), np.float32)
    for row in range(4):
        for column in range(3):
            centre = (38 + 70 * column + random.uniform(-4, 4), 22 + 38 * row + random.uniform(-2, 2))
            line(
                map_,
                centre,
                random.uniform(4, 34),
                random.uniform(2, 12),
                random.choice([0, 90, random.uniform(-80, 80)]),
                random.uniform(0.3, 1),
            )
    map_ = cv2.GaussianBlur(map_, (5, 5), 0)
    for y, x in random.integers(0, 160, (12, 2)):
        map_[y, x] = random.uniform(0.1, 0.9)
    return map_


def outline(found: Detections, row: int) -> np.ndarray:
    shape = found.shapes.get(row)
    if shape is not None:
        return quad_of(shape)
    x0, y0, x1, y1 = found.boxes_xyxy_px[row]
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    # OpenCV loses its way where edges lie on each other.
    if np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1).max() < 0.05:
        return 1.0
    common, _ = cv2.intersectConvexConvex(cv2.convexHull(a.astype(np.float32)), cv2.convexHull(b.astype(np.float32)))
    areas = [abs(cv2.contourArea(corners.astype(np.float32))) for corners in (a, b)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize("seed", range(12))
def test_regions_are_those_of_the_plain_way(seed: int) -> None:
    map_ = scattered(seed)
    expected = slow_regions(map_, READING.threshold, ANY.confidence, READING.unclip, 3)
    found = regions(map_)
    assert len(found) == len(expected) >= 3
    left = list(range(len(found)))
    for corners, mean in expected:
        best = max(left, key=lambda row: overlap(outline(found, row), corners))
        left.remove(best)
        # What is hardly turned is told as if it were not; what reaches beyond the image is cut off there.
        cut = (corners < 0).any() or (corners > map_.shape[::-1]).any()
        assert overlap(outline(found, best), corners) > (0.5 if cut else 0.99 if best in found.shapes else 0.8)
        assert found.confidences[best] == pytest.approx(mean, abs=1e-4)
    assert (np.diff(found.confidences) <= 0).all()
    for row in range(len(found)):
        assert (outline(found, row) >= 0).all()
        assert (outline(found, row) <= map_.shape[::-1]).all()
    assert found.class_ids.tolist() == [0] * len(found)


def test_what_lies_inside_a_ring_is_found() -> None:
    map_ = np.zeros((120, 200), np.float32)
    cv2.rectangle(map_, (10, 10), (190, 110), 0.9, 5)
    map_[50:60, 60:140] = 0.95
    (box,) = regions(map_).boxes_xyxy_px.tolist()
    assert box[0] == pytest.approx(60 - 6, abs=1)
    assert box[3] == pytest.approx(60 + 6, abs=1)


@pytest.mark.parametrize("degrees", [0, 3, 20, 44, 46, 58, -30, -55])
def test_a_line_keeps_its_direction_up_to_60_degrees(degrees: float) -> None:
    map_ = np.zeros((300, 300), np.float32)
    line(map_, (150, 150), 180, 12, degrees)
    found = regions(map_)
    assert len(found) == 1
    if degrees == 0:
        assert found.shapes == {}
        return
    shape = found.shapes[0]
    assert isinstance(shape, RotatedBox)
    assert shape.angle_degrees == pytest.approx(degrees, abs=0.7)
    grown = 2 * (180 * 12 * 1.4) / (2 * (180 + 12))
    assert (shape.width_px, shape.height_px) == pytest.approx((180 + grown, 12 + grown), abs=3)
    assert shape.center_xy_px == pytest.approx((150.5, 150.5), abs=1)


@pytest.mark.parametrize("degrees", [7, -7, 40, -40, 57, -57])
def test_a_turned_line_at_the_edge_ends_there(degrees: float) -> None:
    whole_map = np.zeros((400, 400), np.float32)
    line(whole_map, (200, 200), 220, 14, degrees)
    (core,) = regions(whole_map, reading=MapReading(0.2, 1e-6)).boxes_xyxy_px.astype(int)
    # So that the core touches the edge, and what it is grown by has no room.
    map_ = np.ascontiguousarray(whole_map[core[1] : core[3] + 2, core[0] : core[2] + 2])
    found = regions(map_)
    shape = found.shapes[0]
    assert isinstance(shape, RotatedBox)
    assert shape.angle_degrees == pytest.approx(degrees, abs=1)
    corners = outline(found, 0)
    assert (corners >= 0).all()
    assert (corners <= map_.shape[::-1]).all()
    # Where a line climbs steeply, its ends make room for its height.
    assert shape.width_px > (200 if abs(degrees) < 45 else 150)
    assert shape.height_px > 12


@pytest.mark.parametrize("degrees", [90, 80, -70])
def test_a_line_that_stands_is_higher_than_wide(degrees: float) -> None:
    map_ = np.zeros((300, 300), np.float32)
    line(map_, (150, 150), 180, 12, degrees)
    found = regions(map_)
    shape = found.shapes.get(0) or RotatedBox((0, 0), *(found.boxes_xyxy_px[0, 2:] - found.boxes_xyxy_px[0, :2]), 0)
    assert shape.height_px > 5 * shape.width_px
    assert abs(shape.angle_degrees) <= 30


def test_a_line_that_is_hardly_turned_is_a_box() -> None:
    map_ = np.zeros((60, 400), np.float32)
    map_[30:40, 20:200] = 0.9
    map_[29:39, 200:380] = 0.9
    found = regions(map_)
    assert found.shapes == {}
    assert found.boxes_xyxy_px[0] == pytest.approx((20, 29, 380, 40), abs=8)


def test_boxes_are_those_of_the_image_and_padding_holds_none() -> None:
    image_shape = (400, 1000)
    letterbox = Letterbox.fit(image_shape, (256, 320), enlarge=False)
    assert letterbox.content_shape == (128, 320)
    assert letterbox.top_px == 64
    map_ = np.zeros((256, 320), np.float32)
    map_[64 + 32 : 64 + 48, 100:200] = 0.9
    map_[10:30, 50:150] = 0.9  # above the image
    (box,) = select_map(map_[None], letterbox, ANY, MapReading(0.2, 0.001)).boxes_xyxy_px
    gain = 1000 / 320
    # A core reaches from the centre of its first pixel to that of its last.
    np.testing.assert_allclose(box, np.array([100.5, 32.5, 199.5, 47.5]) * gain, atol=0.2)


def test_options_apply() -> None:
    map_ = np.zeros((100, 300), np.float32)
    for column, value in enumerate((0.5, 0.9, 0.7)):
        map_[40:60, 20 + 100 * column : 80 + 100 * column] = value
    assert regions(map_).confidences == pytest.approx([0.9, 0.7, 0.5], abs=0.01)
    assert regions(map_, Selection(0.6)).confidences == pytest.approx([0.9, 0.7], abs=0.01)
    few = regions(map_, Selection(0.4, max_detections=1))
    assert (len(few), few.left_out) == (1, True)
    assert not regions(map_, Selection(0.4, max_detections=3)).left_out
    assert len(regions(map_, Selection(0.4, class_ids=frozenset()))) == 0
    assert len(regions(map_, Selection(0.4, class_ids=frozenset({0})))) == 3
    assert len(regions(map_, reading=MapReading(0.8, 1.4))) == 1


def test_nan_and_empty_maps_give_no_regions() -> None:
    assert len(regions(np.zeros((64, 64), np.float32))) == 0
    assert len(regions(np.full((64, 64), np.nan, np.float32))) == 0
    map_ = np.zeros((64, 64), np.float32)
    map_[20:30, 10:50] = 0.9
    map_[25, 30] = np.nan
    found = regions(map_)
    assert np.isfinite(found.boxes_xyxy_px).all()
    assert np.isfinite(found.confidences).all()


def test_a_map_full_of_specks_costs_no_more_than_the_longest_outlines() -> None:
    random = np.random.default_rng(1)
    map_ = np.zeros((700, 700), np.float32)
    for y in range(4, 700, 9):
        for x in range(4, 700, 9):
            map_[y : y + 5, x : x + random.integers(4, 6)] = 0.9
    map_[:7, :] = 0.9
    found = regions(map_)
    assert len(found) == MAX_CANDIDATES
    assert found.boxes_xyxy_px[:, 2].max() == pytest.approx(700, abs=0.1), "the longest is among them"


def test_the_whole_map_may_be_text() -> None:
    found = regions(np.full((96, 128), 0.9, np.float32))
    assert found.boxes_xyxy_px[0] == pytest.approx((0, 0, 128, 96), abs=0.1)
    assert math.isclose(found.confidences[0], 0.9, rel_tol=1e-5)


def test_cores_of_four_rows_are_lines_wherever_they_are() -> None:
    """The lowest print has those; whether one was kept depended on the last digits of where it lay."""
    map_ = np.zeros((640, 700), np.float32)
    for row, top in enumerate(range(8, 620, 12)):
        map_[top : top + 4, 20 + row : 640 - 3 * row] = 0.9
    assert len(regions(map_)) == 51
    assert len(regions(np.roll(map_, 1, axis=0)[:, ::-1].copy())) == 51
