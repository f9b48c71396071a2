"""In which input an image is shown."""

import pytest
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import Inputs, natural_shape


@pytest.mark.parametrize(
    ("image", "shape", "content"),
    [
        ((3507, 2481), (1280, 928), (1280, 906)),  # A4 at 300 dpi
        ((1080, 810), (1088, 832), (1080, 810)),  # as it is
        ((191, 384), (192, 384), (191, 384)),
        ((20, 60), (64, 96), (20, 60)),  # not enlarged, and with a margin
        ((60, 250), (96, 288), (60, 250)),
        ((40, 3000), (96, 3040), (40, 3000)),  # a strip keeps its height
        ((100, 3000), (64, 1920), (64, 1920)),
        ((3000, 40), (3040, 96), (3000, 40)),
        ((40, 60_000), (64, 25_600), (17, 25_600)),  # as far as its pixels are no more than those of a page
        ((1, 1), (64, 64), (1, 1)),
        ((4000, 4000), (1280, 1280), (1280, 1280)),
    ],
)
def test_small_images_stay_as_they_are(
    image: tuple[int, int], shape: tuple[int, int], content: tuple[int, int]
) -> None:
    assert natural_shape(image, 1280) == shape
    placed = Letterbox.place(image, Inputs(((1280, 960),), enlarges=False, any_shape=True))
    assert (placed.input_shape, placed.content_shape) == (shape, content)
    assert shape[0] * shape[1] <= 1280 * 1280


def test_listed_inputs_are_chosen_by_what_they_show() -> None:
    inputs = Inputs(((1280, 1280), (960, 1280), (640, 640)), enlarges=False)
    assert inputs.sizes == (1280, 640)
    assert inputs.shape_of((900, 1200)) == (960, 1280)
    assert inputs.shape_of((900, 1200), 640) == (640, 640)
    assert Letterbox.place((300, 200), inputs).content_shape == (300, 200)
    assert Letterbox.place((300, 200), Inputs(((640, 640),))).content_shape == (640, 427)
