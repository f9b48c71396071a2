"""Placing images in inputs."""

import numpy as np
import pytest
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import choose_shape, default_shapes


@pytest.mark.parametrize(
    ("image", "chosen"),
    [
        ((1080, 810), (640, 480)),  # exactly 3:4
        ((720, 1280), (480, 640)),
        ((427, 640), (480, 640)),
        ((500, 500), (640, 640)),
        ((1000, 900), (640, 640)),
        ((191, 384), (480, 640)),
        ((60_000, 1), (640, 480)),
        ((480, 644), (480, 640)),
        ((484, 640), (480, 640)),  # a loss of 1% of scale is taken for a quarter less computing
        ((500, 640), (640, 640)),  # one of 4% is not
    ],
)
def test_the_smallest_shape_that_shows_as_much_is_chosen(image: tuple[int, int], chosen: tuple[int, int]) -> None:
    assert choose_shape(image, default_shapes(640)) == chosen


def test_default_shapes() -> None:
    assert default_shapes(640) == ((640, 640), (480, 640), (640, 480))
    # 720 is no multiple of 32; in 704 a photograph of 4:3 would not fit, and take the square.
    assert default_shapes(960) == ((960, 960), (736, 960), (960, 736))
    assert choose_shape((1080, 810), default_shapes(960)) == (960, 736)
    assert default_shapes(1024) == ((1024, 1024), (768, 1024), (1024, 768))
    assert default_shapes(32) == ((32, 32),)


@pytest.mark.parametrize("image", [(1080, 810), (427, 640), (333, 1001), (7, 9), (640, 640), (1, 5000), (481, 640)])
@pytest.mark.parametrize("shape", [(640, 640), (480, 640), (640, 480)])
def test_boxes_come_back_to_where_they_were(image: tuple[int, int], shape: tuple[int, int]) -> None:
    placed = Letterbox.fit(image, shape)
    height, width = placed.content_shape
    assert height <= shape[0]
    assert width <= shape[1]
    assert abs(placed.top_px * 2 + height - shape[0]) <= 1
    assert abs(placed.left_px * 2 + width - shape[1]) <= 1
    inside = [placed.left_px, placed.top_px, placed.left_px + width, placed.top_px + height]
    back = placed.to_image(np.array([inside], np.float32))
    np.testing.assert_allclose(back, [[0, 0, image[1], image[0]]], rtol=1e-4, atol=1e-3)
    beyond = placed.to_image(np.array([[-50, -50, 9999, 9999]], np.float32))
    assert beyond.tolist() == [[0, 0, image[1], image[0]]]


def test_drawing_scales_centres_and_pads_with_grey() -> None:
    image = np.full((100, 200, 3), 7, np.uint8)
    placed = Letterbox.fit((100, 200), (96, 96))
    drawn = placed.draw(image)
    assert drawn.shape == (96, 96, 3)
    assert placed.content_shape == (48, 96)
    assert (drawn[24:72] == 7).all()
    assert (drawn[:24] == 114).all()
    assert (drawn[72:] == 114).all()


def test_an_image_that_fits_is_not_copied() -> None:
    image = np.zeros((96, 64, 3), np.uint8)
    assert Letterbox.fit((96, 64), (96, 64)).draw(image) is image
    half = np.zeros((48, 32, 3), np.uint8)
    assert Letterbox.fit((48, 32), (96, 64)).draw(half).shape == (96, 64, 3)
    narrow = np.full((96, 20, 3), 9, np.uint8)
    drawn = Letterbox.fit((96, 20), (96, 64)).draw(narrow)
    assert (drawn[:, 22:42] == 9).all()


@pytest.mark.parametrize("enlarge", [True, False])
def test_strokes_of_large_images_are_averaged(enlarge: bool) -> None:
    image = np.full((2403, 2405, 3), 255, np.uint8)
    image[:, 1::5] = 0  # a stroke of one pixel in five
    drawn = Letterbox.fit((2403, 2405), (480, 480), enlarge=enlarge).draw(image)
    # Taking the nearest pixels alone would leave all strokes out.
    assert drawn[5:-5, 5:-5].max() < 230
    assert drawn[5:-5, 5:-5].mean() == pytest.approx(204, abs=3)


@pytest.mark.parametrize("image", [(2403, 2399), (1999, 3001), (1283, 1281), (1000, 5003)])
def test_averaging_moves_nothing(image: tuple[int, int]) -> None:
    height, width = image
    pixels = np.full((height, width, 3), 255, np.uint8)
    top, left, bottom, right = height - height // 4, width - width // 3, height - 20, width - 40
    pixels[top:bottom, left:right] = 0
    placed = Letterbox.fit(image, (640, 640))
    rows, columns = np.nonzero(placed.draw(pixels)[:, :, 0] < 100)
    dark = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    found = placed.to_image(dark)[0]
    assert found == pytest.approx((left, top, right, bottom), abs=1.5 * max(image) / 640)


def test_the_edge_of_an_image_goes_on_where_it_is_not_enlarged() -> None:
    image = np.random.default_rng(1).integers(120, 200, (60, 100, 3), np.uint8)
    for shape, grey in (((92, 132), False), ((256, 256), True)):
        placed = Letterbox.fit(image.shape[:2], shape, enlarge=False)
        canvas, top, left = placed.draw(image), placed.top_px, placed.left_px
        np.testing.assert_array_equal(placed.inside(canvas), image)
        np.testing.assert_array_equal(canvas[top - 16 : top, left + 7], np.repeat(image[:1, 7], 16, axis=0))
        np.testing.assert_array_equal(canvas[top + 59 : top + 76, left + 7], np.repeat(image[-1:, 7], 17, axis=0))
        np.testing.assert_array_equal(canvas[top + 9, left - 16 : left], np.repeat(image[9, :1], 16, axis=0))
        np.testing.assert_array_equal(canvas[top + 9, left + 99 : left + 116], np.repeat(image[9, -1:], 17, axis=0))
        np.testing.assert_array_equal(canvas[top - 16, left - 16], image[0, 0])
        assert (canvas == 114).any() == grey
    # A YOLO model is trained with grey.
    enlarged = Letterbox.fit((60, 100), (96, 128)).draw(image)
    assert (enlarged[:4] == 114).all()
