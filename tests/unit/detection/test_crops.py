"""Cutting regions."""

import cv2
import numpy as np
import pytest
from sluiceway_detection.crops import MAX_CROPS, CropPlan, cut_crops
from sluiceway_detection.crops.cutting import quad_of
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
    plan = CropPlan("class", height_px=64, max_width_px=32, rule="stretch")
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


WHOLE = CropPlan("region", height_px=0, max_width_px=100, rule="fit_longest")


def test_a_region_that_fits_is_cut_as_it_is() -> None:
    image = photograph()
    (crop,) = cut_crops(image, detections((10.7, 20.2, 30.1, 44.9)), (WHOLE,), PLENTY)
    assert (crop.pixels == image[20:45, 10:31]).all()
    assert crop.to_image == (1, 0, 10, 0, 1, 20, 0, 0, 1)


def test_a_full_width_region_is_contiguous() -> None:
    (crop,) = cut_crops(photograph()[:, :90], detections((0, 0, 90, 40)), (WHOLE,), PLENTY)
    assert crop.pixels.flags.c_contiguous
    assert crop.pixels.shape == (40, 90, 3)


@pytest.mark.parametrize(
    ("box", "size", "method"),
    [
        ((0, 0, 150, 30), (100, 20), cv2.INTER_LINEAR),
        ((50, 0, 90, 199), (20, 100), cv2.INTER_LINEAR),
        ((20, 10, 220, 70), (100, 30), cv2.INTER_AREA),
        ((0, 0, 300, 200), (100, 67), cv2.INTER_AREA),
        ((0, 5, 300, 6), (100, 1), cv2.INTER_AREA),
    ],
)
def test_a_larger_region_is_shrunk_to_its_longer_side(
    box: tuple[int, int, int, int], size: tuple[int, int], method: int
) -> None:
    image = photograph()
    (crop,) = cut_crops(image, detections(box), (WHOLE,), PLENTY)
    x0, y0, x1, y1 = box
    assert crop.pixels.shape == (size[1], size[0], 3)
    assert (crop.pixels == cv2.resize(image[y0:y1, x0:x1], size, interpolation=method)).all()
    # The corners of the crop are those of the window, exactly.
    matrix = np.array(crop.to_image).reshape(3, 3)
    corners = np.array([[0, 0, 1], [*size, 1]])
    np.testing.assert_allclose((corners @ matrix.T)[:, :2], [[x0, y0], [x1, y1]], rtol=1e-12)


def test_other_rules_say_nothing_of_where_a_crop_lies() -> None:
    plans = (LINE, CropPlan("class", 32, 32, rule="stretch"), WHOLE)
    crops = cut_crops(photograph(), detections((10, 10, 58, 34)), plans, PLENTY)
    assert [crop.to_image is None for crop in crops] == [True, True, False]


SHAPES = [
    RotatedBox((150, 100), 80, 24, 30),
    RotatedBox((150, 100), 90, 80, 200),
    Polygon(((60.0, 40.0), (230.0, 55.0), (210.0, 150.0), (80.0, 160.0))),
    Polygon(((90.0, 40.0), (120.0, 35.0), (260.0, 190.0), (5.0, 180.0))),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("longest", [400, 70, 33])
def test_a_warped_region_says_where_each_of_its_pixels_lies(shape: RotatedBox | Polygon, longest: int) -> None:
    # A picture of its own coordinates: what a crop shows is where it says that it lies.
    rows, columns = np.mgrid[0:200, 0:300]
    image = np.dstack([columns * 255 / 300, rows * 255 / 200, np.zeros((200, 300))]).round().astype(np.uint8)
    (crop,) = cut_crops(image, with_shape(shape), (WHOLE._replace(max_width_px=longest),), PLENTY)
    height, width = crop.pixels.shape[:2]
    assert max(height, width) <= longest
    matrix = np.array(crop.to_image).reshape(3, 3)
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ matrix.T
    np.testing.assert_allclose(corners[:, :2] / corners[:, 2:], quad_of(shape), atol=1e-3)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = np.dstack([x, y, np.ones_like(x)]) @ matrix.T
    expected = (places[..., :2] / places[..., 2:] - 0.5) * [255 / 300, 255 / 200]
    inner = slice(1, -1), slice(1, -1)  # beyond the edge of the image the last pixel is repeated
    assert np.abs(crop.pixels[..., :2].astype(float) - expected)[inner].max() < 2.5


def test_a_turned_region_is_averaged_where_it_is_shrunk_much() -> None:
    # Single white columns: a mixture of the nearest pixels would show some of them and leave others out.
    image = np.zeros((200, 300, 3), np.uint8)
    image[:, ::4] = 255
    box = RotatedBox((150, 100), 240, 120, 0)
    (crop,) = cut_crops(image, with_shape(box), (WHOLE._replace(max_width_px=60),), PLENTY)
    assert crop.pixels.shape == (30, 60, 3)
    assert np.abs(crop.pixels[2:-2, 2:-2].astype(int) - 64).max() <= 2


@pytest.mark.parametrize(
    "shape",
    [
        Polygon(((10.0, 10.0), (90.0, 10.0), (10.0, 10.0), (90.0, 10.0))),
        Polygon(((10.0, 10.0), (90.0, 90.0), (90.0, 10.0), (10.0, 90.0))),
        Polygon(((10.0, 10.0), (90.0, 10.0), (20.0, 20.0), (10.0, 90.0))),
        Polygon(((10.0, 10.0), (90.0, 10.0), (90.0, 10.0), (10.0, 10.0))),
    ],
)
def test_what_no_homography_covers_gives_no_crop_of_its_own_size(shape: Polygon) -> None:
    assert cut_crops(photograph(), with_shape(shape), (WHOLE,), PLENTY) == []


def test_a_region_far_larger_than_the_image_is_not_drawn_in_full() -> None:
    far = Polygon(((-1e5, -1e5), (1e5, -1e5), (1e5, 1e5), (-1e5, 1e5)))
    (crop,) = cut_crops(photograph(), with_shape(far), (WHOLE,), PLENTY)
    assert crop.pixels.shape == (100, 100, 3)


TURNING = CropPlan("text", height_px=48, max_width_px=1920, turn_ratio=1.5)


def test_a_region_that_is_tall_is_turned_before_it_is_resized() -> None:
    image = photograph()
    found = detections((10, 10, 40, 190), (10, 10, 40, 55), (10, 10, 40, 54))
    crops = cut_crops(image, found, (TURNING, CropPlan("class", 20, 30, rule="stretch", turn_ratio=1.5)), PLENTY)
    assert [crop.turned for crop in crops] == [True, True, True, True, False, False]
    turned = np.rot90(image[10:190, 10:40])  # its right edge is the top now
    assert (crops[0].pixels == cv2.resize(np.ascontiguousarray(turned), (288, 48))).all()
    assert crops[1].pixels.shape == (20, 30, 3)
    # All its detail is there: of 180 rows a crop of 48 would have left a quarter.
    assert crops[4].pixels.shape == (48, 33, 3)


def test_a_turned_region_that_is_tall_is_turned_as_well() -> None:
    image = photograph()
    (expected,) = cut_crops(image, detections((100, 60, 124, 140)), (TURNING,), PLENTY)
    matrix = cv2.getRotationMatrix2D((112, 100), -10, 1)
    askew = cv2.warpAffine(image, matrix, (300, 200))
    (crop,) = cut_crops(askew, with_shape(RotatedBox((112, 100), 24, 80, 10)), (TURNING,), PLENTY)
    assert crop.turned
    assert crop.pixels.shape == expected.pixels.shape == (48, 160, 3)
    assert np.abs(crop.pixels.astype(int) - expected.pixels).mean() < 6


def test_detectors_get_regions_as_they_lie() -> None:
    plan = CropPlan("look", 1, 500, rule="fit_longest", turn_ratio=1.5)
    (crop,) = cut_crops(photograph(), detections((10, 10, 40, 190)), (plan,), PLENTY)
    assert not crop.turned
    assert crop.pixels.shape == (180, 30, 3)
