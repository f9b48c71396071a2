"""What a head tells beside boxes and classes: turned boxes, outlines, keypoints; DETR; and crops by keypoints."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sluiceway_detection.crops import CropPlan, cut_crops
from sluiceway_detection.crops.alignment import aligned_quad
from sluiceway_detection.crops.cutting import quad_of
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, Polygon, RotatedBox
from sluiceway_detection.yolo.heads import PLAIN, Head
from sluiceway_detection.yolo.masks import outlines
from sluiceway_detection.yolo.postprocess import select_classic, select_end_to_end, select_places, select_queries
from sluiceway_detection.yolo.rotated import shapes_of, suppress_rotated

WHOLE = Letterbox.fit((160, 160), (160, 160))
# 320 x 160 in an input of 160 x 160: at half its size, with 40 rows of padding above.
HALVED = Letterbox.fit((160, 320), (160, 160))
WIDE = Selection(0.2, 0.5, 100)


def places(*rows: tuple[float, ...], classes: int = 2) -> np.ndarray:
    """A classic head's output of: box, confidence, class, what is beside them."""
    output = np.zeros((len(rows), len(rows[0]) - 2 + classes), np.float32)
    for at, row in enumerate(rows):
        output[at, :4], output[at, 4 + int(row[5])], output[at, 4 + classes :] = row[:4], row[4], row[6:]
    return output.T


def test_turned_boxes_keep_their_corners_on_the_way_to_the_image() -> None:
    head = Head("obb", 1)
    row = (80.0, 80.0, 60.0, 20.0, 0.9, 1, np.radians(30))
    found = select_classic(places(row), HALVED, WIDE, head)
    (shape,) = found.shapes.values()
    assert isinstance(shape, RotatedBox)
    assert shape.center_xy_px == pytest.approx((160, 80))
    assert (shape.width_px, shape.height_px, shape.angle_degrees) == pytest.approx((120, 40, 30), abs=1e-3)
    corners = quad_of(shape)
    assert found.boxes_xyxy_px[0] == pytest.approx([*corners.min(axis=0), *corners.max(axis=0)], abs=1e-3)
    assert found.class_ids.tolist() == [1]
    # The same from places with reduced classes, and from rows of an NMS-free head.
    reduced = np.array([[*row[:6], row[6]]], np.float32)
    for other in (select_places(reduced.T, HALVED, WIDE, head), select_end_to_end(reduced, HALVED, WIDE, head)):
        assert quad_of(other.shapes[0]) == pytest.approx(corners, abs=1e-3)


@pytest.mark.parametrize("degrees", [-170, -100, -61, -59, -1, 0, 45, 59, 61, 90, 135, 180, 260])
def test_a_turned_box_is_told_with_its_longer_side_lying_unless_it_climbs(degrees: int) -> None:
    for width, height in ((50.0, 20.0), (20.0, 50.0)):
        box = np.array([[10, 20, width, height, np.radians(degrees)]], np.float32)
        (shape,) = shapes_of(box)
        assert abs(shape.angle_degrees) <= 60.001
        steep = abs((degrees + (90 if height > width else 0) + 90) % 180 - 90) > 60
        assert (shape.height_px > shape.width_px) == steep
        given = quad_of(RotatedBox((10, 20), width, height, degrees))
        # Whichever corner it begins with.
        distances = np.linalg.norm(quad_of(shape)[:, None] - given[None], axis=2)
        assert distances.min(axis=0).max() < 0.02


def test_turned_boxes_suppress_what_they_cover_and_no_other_class() -> None:
    box = [80, 80, 60, 20, 0.5]
    crossing, apart = [80, 80, 60, 20, 0.5 + np.pi / 2], [120, 120, 60, 20, 0.5]
    boxes = np.array([box, box, crossing, apart, box], np.float32)
    assert suppress_rotated(boxes, np.zeros(5, np.int32), 0.5, 100).tolist() == [0, 2, 3]
    assert suppress_rotated(boxes, np.array([0, 1, 0, 0, 0], np.int32), 0.5, 100).tolist() == [0, 1, 2, 3]
    assert suppress_rotated(boxes, np.arange(5, dtype=np.int32), 0.5, 2).tolist() == [0, 1]
    # Boxes without area suppress nothing and do not divide by zero.
    assert len(suppress_rotated(np.zeros((3, 5), np.float32), np.arange(3, dtype=np.int32), 0.5, 9)) == 3
    # Beyond one block, blocks are compared with those before them.
    many = np.repeat(boxes[:1], 600, axis=0)
    many[:, 0] += np.arange(600) // 2 * 200
    assert suppress_rotated(many, np.zeros(600, np.int32), 0.5, 999).tolist() == list(range(0, 600, 2))


def test_regions_of_different_classes_are_compared_where_that_is_wanted() -> None:
    rows = [(80.0, 80.0, 60.0, 60.0, 0.9, 0), (81.0, 80.0, 60.0, 60.0, 0.8, 1)]
    for head, extra in ((PLAIN, ()), (Head("obb", 1), (0.1,))):
        output = places(*[(*row, *extra) for row in rows])
        assert select_classic(output, WHOLE, WIDE, head).class_ids.tolist() == [0, 1]
        agnostic = select_classic(output, WHOLE, WIDE._replace(agnostic=True), head)
        assert agnostic.class_ids.tolist() == [0]


def disc(radius: float, centre: tuple[float, float] = (20, 20), hole: float = 0) -> np.ndarray:
    """A prototype [1, 40, 40], above 0 within a disc (in cells), but not within its hole."""
    y, x = np.mgrid[:40, :40] + 0.5
    distance = np.hypot(x - centre[0], y - centre[1])
    return np.minimum(radius - distance, distance - hole if hole else np.inf)[None].astype(np.float32)


def area(polygon: Polygon) -> float:
    x, y = np.array(polygon.points_xy_px).T
    # Positive where it goes round clockwise as seen on the screen.
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_a_mask_becomes_an_outline_in_pixels_of_the_image() -> None:
    head = Head("segment", 1)
    # A disc with a radius of 40 pixels of the input, in a box that holds it, and in one that cuts it in half.
    output = places((80, 80, 100, 100, 0.9, 0, 1.0), (40, 80, 80, 100, 0.8, 1, 1.0), (80, 80, 90, 90, 0.7, 1, -1.0))
    found = select_classic((output, disc(10)), WHOLE, WIDE, head)
    whole, half = (area(found.shapes[row]) for row in (0, 1))
    assert whole == pytest.approx(np.pi * 40**2, rel=0.01)
    assert half == pytest.approx(np.pi * 40**2 / 2, rel=0.02)
    assert max(x for x, _ in found.shapes[1].points_xy_px) == pytest.approx(80)
    # Where nothing is above 0 there is no region; outside the disc, the third one is a region all the same.
    assert len(found) == 3
    assert len(select_classic((output, -np.ones((1, 40, 40), np.float32)), WHOLE, WIDE, head)) == 1
    halved = select_classic((output, disc(10)), HALVED, WIDE, head)
    assert area(halved.shapes[0]) == pytest.approx(4 * np.pi * 40**2, rel=0.01)
    # Round means few corners, not one for each pixel.
    assert len(found.shapes[0].points_xy_px) < 120


def test_parts_and_holes_of_a_mask_are_joined_by_seams() -> None:
    ring = outlines(np.array([[0, 0, 160, 160]], np.float32), np.ones((1, 1), np.float32), disc(15, hole=8), WHOLE)[0]
    assert ring is not None
    assert area(ring) == pytest.approx(np.pi * (60**2 - 32**2), rel=0.01)
    two = np.maximum(disc(6, (10, 10)), disc(6, (30, 30)))
    both = outlines(np.array([[0, 0, 160, 160]], np.float32), np.ones((1, 1), np.float32), two, WHOLE)[0]
    assert both is not None
    assert area(both) == pytest.approx(2 * np.pi * 24**2, rel=0.01)
    outside = outlines(np.array([[-90, -90, -20, -20]], np.float32), np.ones((1, 1), np.float32), two, WHOLE)
    assert outside == [None]


def test_keypoints_go_to_the_image_with_their_region() -> None:
    head = Head("pose", 6, (2, 3))
    weak = (80.0, 80.0, 30.0, 20.0, 0.5, 0, 1, 2, 0.5, 3, 4, 0.5)
    strong = (40.0, 80.0, 30.0, 20.0, 0.9, 0, 30, 70, 0.8, 50, 500, 2.0)
    found = select_classic(places(weak, strong), HALVED, WIDE, head)
    assert found.keypoints is not None
    # The second one lies below the image and is certain; the padding of 40 rows is gone.
    assert found.keypoints[0] == pytest.approx(np.array([[60, 60, 0.8], [100, 160, 1.0]]))
    assert found.first(1).keypoints is not None
    assert found.first(1).keypoints.shape == (1, 2, 3)  # type: ignore[union-attr]
    plain = select_classic(places((*weak[:6], 1, 2, 3, 4)), WHOLE, WIDE, Head("pose", 4, (2, 2)))
    assert plain.keypoints is not None
    assert plain.keypoints[0].tolist() == [[1, 2, 1], [3, 4, 1]]


@pytest.mark.parametrize("task", ["obb", "segment", "pose"])
def test_what_is_not_finite_beside_a_box_is_no_region(task: str) -> None:
    extra = {"obb": 1, "segment": 1, "pose": 2}[task]
    rows = [(30.0 + 60 * at, 80, 40, 40, 0.9, 0, *[value] * extra) for at, value in enumerate((1.0, np.nan, np.inf))]
    output = places(*rows)
    given = (output, np.ones((1, 40, 40), np.float32)) if task == "segment" else output
    found = select_classic(given, WHOLE, WIDE, Head(task, extra, (1, 2)))  # type: ignore[arg-type]
    assert len(found) == 1


def test_queries_of_detr_models_are_read_in_each_of_their_forms() -> None:
    boxes = np.array([[0.5, 0.5, 0.25, 0.5], [0.1, 0.1, 0.1, 0.1]], np.float32)
    stretched = Letterbox((160, 160), (200, 400), (160, 160), 0, 0)
    likely, none = np.log(9.0), -9.0
    rows = np.array([[*boxes[0], 0.9, 1], [*boxes[1], 0.1, 0]], np.float32)
    forms = {
        "rows": rows,
        "scores": np.array([[*boxes[0], 0.1, 0.9], [*boxes[1], 0.1, 0.05]], np.float32),
        "logits": (np.array([[none, likely], [none, none]], np.float32), boxes),
        "softmax": (np.array([[none, likely, 0.0], [none, none, 9.0]], np.float32), boxes),
    }
    for form, output in forms.items():
        head = Head(transformer=form, boxes_output=1)  # type: ignore[arg-type]
        found = select_queries(output, stretched, WIDE, head)
        assert found.class_ids.tolist() == [1], form
        assert found.confidences == pytest.approx([0.9], abs=1e-4)
        assert found.boxes_xyxy_px[0] == pytest.approx([150, 50, 250, 150])
    found = select_queries(np.full((3, 6), np.nan, np.float32), stretched, WIDE, Head(transformer="rows"))
    assert len(found) == 0


def test_four_keypoints_are_straightened_and_five_are_turned_and_scaled() -> None:
    corners = np.array([[10, 12, 1], [90, 20, 1], [85, 60, 1], [14, 50, 1]], np.float32)
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    quad = aligned_quad(corners, square, (32, 96))
    assert quad is not None
    assert quad == pytest.approx(corners[:, :2], abs=1e-3)
    # With a margin of a tenth the crop begins outside of them.
    inner = tuple((0.1 + 0.8 * x, 0.1 + 0.8 * y) for x, y in square)
    wider = aligned_quad(corners, inner, (32, 96))
    assert wider is not None
    assert cv2.contourArea(wider) > cv2.contourArea(quad)
    # Five points that were turned by 25 degrees, doubled and moved: the crop is found again, exactly.
    template = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    angle, size = np.radians(25), 2 * np.array([112, 112])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(template) * size @ turn.T + (200, 50)
    found = aligned_quad(np.c_[points, np.ones(5)].astype(np.float32), template, (112, 112))
    assert found == pytest.approx(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size @ turn.T + (200, 50), abs=0.01)


def test_keypoints_that_lead_nowhere_leave_the_crop_as_it_would_be() -> None:
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    image = np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8)
    boxes, plan = np.array([[10, 10, 50, 40]], np.float32), CropPlan("c", 32, 32, rule="stretch", align=square)
    plain = cut_crops(image, detections(boxes, None), (plan._replace(align=()),), 10**6)[0].pixels
    for points in ([[20, 20]] * 4, [[10, 10], [50, 40], [50, 10], [10, 40]], [[0, 0], [9, 9], [1, 2]]):
        keypoints = np.array([[(x, y, 1) for x, y in points]], np.float32)
        (crop,) = cut_crops(image, detections(boxes, keypoints), (plan,), 10**6)
        assert np.array_equal(crop.pixels, plain), points
    (crop,) = cut_crops(
        image, detections(boxes, np.array([[(x * 30 + 10, y * 30 + 10, 1) for x, y in square]])), (plan,), 10**6
    )
    assert crop.pixels[1:-1, 1:-1].shape == (30, 30, 3)
    assert not np.array_equal(crop.pixels, plain)


def detections(boxes: np.ndarray, keypoints: np.ndarray | None) -> Detections:
    count = len(boxes)
    ones = np.ones(count, np.float32)
    points = None if keypoints is None else keypoints.astype(np.float32)
    return Detections(boxes, np.zeros(count, np.int32), ones, keypoints=points)


def test_a_crop_that_covers_keeps_proportions_and_the_middle() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    image[:, 30:90] = 200
    plan = CropPlan("c", 24, 24, rule="cover")
    (crop,) = cut_crops(image, detections(np.array([[0, 0, 120, 60]], np.float32), None), (plan,), 10**6)
    assert crop.pixels.shape == (24, 24, 3)
    assert (crop.pixels == 200).all()
    turned = Detections(
        np.array([[0, 0, 120, 60]], np.float32),
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        {0: RotatedBox((60, 30), 120, 60, 0)},
    )
    (crop,) = cut_crops(image, turned, (plan,), 10**6)
    assert (crop.pixels[:, 1:-1] == 200).all()
