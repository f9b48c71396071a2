"""Cutting regions."""

import cv2
import numpy as np
import pytest
from sluiceway_detection.crops import MAX_CROPS, CropPlan, cut_crops, quad_of
from sluiceway_detection.types import Detections, Polygon, Region, RotatedBox
from sluiceway_runtime.errors import InvalidOption

PLENTY = 10**8
LINE = CropPlan("text", height_px=48, max_width_px=320)


def photograph() -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8), (9, 9), 3)


def detections(*boxes: tuple[float, float, float, float], classes: tuple[int, ...] = ()) -> Detections:
    count = len(boxes)
    ids = np.array(classes or (0,) * count, np.int32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), ids, np.linspace(0.9, 0.5, count, dtype=np.float32))


@pytest.mark.parametrize(
    ("box", "width"),
    [
        ((10, 10, 58, 34), 96),  # 48 x 24 doubled
        ((10, 10, 110, 60), 96),
        ((0, 0, 300, 20), 320),  # 720 would be exact: squeezed
        ((10, 10, 12, 100), 1),  # thin, never 0
        ((10, 10, 58, 58), 48),
    ],
)
def test_width_follows_the_region_and_is_never_padded(box: tuple[float, ...], width: int) -> None:
    image = photograph()
    (crop,) = cut_crops(image, detections(box), (LINE,), PLENTY)
    assert crop.pixels.shape == (48, width, 3)
    assert crop.pixels.flags.c_contiguous
    x0, y0, x1, y1 = map(int, box)
    expected = cv2.resize(image[y0:y1, x0:x1], (width, 48), interpolation=cv2.INTER_LINEAR)
    assert (crop.pixels == expected).all()


def test_every_pixel_that_a_box_touches_is_cut() -> None:
    image = photograph()
    (crop,) = cut_crops(image, detections((10.7, 20.2, 30.1, 44.9)), (LINE,), PLENTY)
    assert (crop.pixels == cv2.resize(image[20:45, 10:31], crop.pixels.shape[1::-1])).all()


def test_stretching_ignores_the_aspect_ratio() -> None:
    plan = CropPlan("class", height_px=64, max_width_px=32, stretch=True)
    (crop,) = cut_crops(photograph(), detections((0, 0, 200, 10)), (plan,), PLENTY)
    assert crop.pixels.shape == (64, 32, 3)


def test_channel_orders() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    image[:] = (200, 100, 10)
    found = detections((0, 0, 50, 50))
    rgb, gray = (CropPlan(name, 8, 8, pixel_format=name) for name in ("rgb", "gray"))
    first, second = cut_crops(image, found, (rgb, gray), PLENTY)
    assert first.pixels[0, 0].tolist() == [10, 100, 200]
    assert second.pixels.shape == (8, 8)
    assert abs(int(second.pixels[0, 0]) - (0.114 * 200 + 0.587 * 100 + 0.299 * 10)) < 1


def test_each_plan_gets_its_classes_in_the_order_of_the_detections() -> None:
    found = detections((0, 0, 20, 20), (20, 20, 60, 40), (60, 0, 90, 90), classes=(1, 0, 1))
    plans = (
        CropPlan("a", 10, 50, class_ids=frozenset({1})),
        CropPlan("b", 10, 50),
        CropPlan("c", 9, 9, class_ids=frozenset()),
    )
    crops = cut_crops(photograph(), found, plans, PLENTY)
    assert [(crop.detection, crop.plan) for crop in crops] == [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)]


def test_what_is_thinner_than_a_pixel_gives_no_crop() -> None:
    found = detections((10, 10, 10.9, 50), (10, 10, 50, 10.5), (10, 10, 50, 50))
    assert [crop.detection for crop in cut_crops(photograph(), found, (LINE,), PLENTY)] == [2]
    assert cut_crops(photograph(), detections(), (LINE,), PLENTY) == []


def test_too_many_bytes_are_refused_before_any_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    found = detections(*[(0, 0, 100, 100)] * 10)
    plan = CropPlan("big", 100, 100)
    assert len(cut_crops(photograph(), found, (plan,), 10 * 30_000)) == 10
    monkeypatch.setattr(cv2, "resize", lambda *arguments, **options: pytest.fail("cut"))
    with pytest.raises(InvalidOption, match="10 crops would take 300000 bytes"):
        cut_crops(photograph(), found, (plan,), 10 * 30_000 - 1)


def test_too_many_crops_are_refused_before_any_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = 32
    plans = tuple(CropPlan(f"m{number}", 1, 1) for number in range(specs))
    boxes = [(0, 0, 9, 9)] * (MAX_CROPS // specs + 1)
    assert len(cut_crops(photograph(), detections(*boxes[:-1]), plans, PLENTY)) == MAX_CROPS
    monkeypatch.setattr(cv2, "resize", lambda *arguments, **options: pytest.fail("cut"))
    with pytest.raises(InvalidOption, match=r"1025 regions for 32 crop specs are more than 32768 crops") as caught:
        cut_crops(photograph(), detections(*boxes), plans, PLENTY)
    assert caught.value.metadata == {"limit": "max_crops", "max": "32768"}


def with_shape(shape: RotatedBox | Polygon) -> Detections:
    return Detections.from_regions([Region((0, 0, 300, 200), 0, 0.9, shape)], 200, 300)


def test_a_turned_box_is_read_upright() -> None:
    image = photograph()
    matrix = cv2.getRotationMatrix2D((150, 100), -30, 1)  # negative: clockwise on the screen
    turned = cv2.warpAffine(image, matrix, (300, 200))
    # The same region of both: in the turned picture it lies 30 degrees clockwise.
    (straight,) = cut_crops(image, detections((110, 88, 190, 112)), (CropPlan("t", 24, 80),), PLENTY)
    box = RotatedBox((150, 100), 80, 24, 30)
    (crop,) = cut_crops(turned, with_shape(box), (CropPlan("t", 24, 80),), PLENTY)
    assert crop.pixels.shape == straight.pixels.shape == (24, 80, 3)
    assert np.abs(crop.pixels.astype(int) - straight.pixels).mean() < 4


def test_an_angle_of_zero_equals_the_upright_box() -> None:
    image = photograph()
    plan = CropPlan("t", 24, 80)
    (upright,) = cut_crops(image, detections((110, 88, 190, 112)), (plan,), PLENTY)
    (turned,) = cut_crops(image, with_shape(RotatedBox((150, 100), 80, 24, 0)), (plan,), PLENTY)
    assert np.abs(turned.pixels.astype(int) - upright.pixels).max() <= 1


def test_polygons() -> None:
    corners = ((110.0, 88.0), (190.0, 88.0), (190.0, 112.0), (110.0, 112.0))
    assert quad_of(Polygon(corners)).tolist() == [list(corner) for corner in corners]
    # Five corners: the smallest rectangle around them, long side lying, top up.
    quad = quad_of(Polygon((*corners, (110.0, 100.0))))
    np.testing.assert_allclose(quad, corners, atol=1e-3)
    (crop,) = cut_crops(photograph(), with_shape(Polygon((*corners, (110.0, 100.0)))), (LINE,), PLENTY)
    assert crop.pixels.shape == (48, 160, 3)


@pytest.mark.parametrize(
    "shape",
    [
        Polygon(((10.0, 10.0), (10.0, 10.0), (10.0, 10.0))),
        Polygon(((10.0, 10.0), (90.0, 10.0), (10.0, 10.0), (90.0, 10.0))),
        Polygon(((1e9, 1e9), (2e9, 1e9), (2e9, 2e9), (1e9, 2e9))),
        RotatedBox((1e9, 1e9), 50, 20, 12),
        RotatedBox((50, 50), 0.5, 0.5, 12),
    ],
)
def test_degenerate_shapes_are_survived(shape: RotatedBox | Polygon) -> None:
    crops = cut_crops(photograph(), with_shape(shape), (LINE,), PLENTY)
    assert all(crop.pixels.shape[0] == 48 for crop in crops)
