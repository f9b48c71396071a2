"""Pixels and files of crops, hostile ones among them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.inputs.preprocess import pixels_of, to_spec
from sluiceway_recognition.types import CropSpec, CropTask, PixelFormat, ResizeRule
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits

LIMITS = ImageLimits(max_bytes=4_000_000, max_pixels=1_000_000)
LINE = CropSpec(48, 1920)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("pixel_format", [PixelFormat.BGR, PixelFormat.RGB])
def test_a_file_comes_in_the_order_of_the_model(pixel_format: PixelFormat) -> None:
    spec = CropSpec(30, 40, pixel_format, ResizeRule.STRETCH)
    pixels = pixels_of(CropTask("m"), encoded(Image.new("RGB", (80, 20), (200, 100, 50))), spec, LIMITS).pixels
    assert pixels.shape == (30, 40, 3)
    assert pixels[0, 0].tolist() == ([50, 100, 200] if pixel_format is PixelFormat.BGR else [200, 100, 50])


def test_a_file_is_decoded_as_a_detection_server_decodes_it() -> None:
    # Turned as its EXIF says, what is transparent as it is stored, 16 bits scaled to eight.
    image = Image.new("RGBA", (20, 48), (10, 20, 30, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    for data in (encoded(image, exif=exif), encoded(Image.new("I;16", (20, 48), 0x8040), "TIFF")):
        decoded = decode_image(data, LIMITS)
        spec = CropSpec(decoded.shape[0], 1920)
        assert (pixels_of(CropTask("m"), memoryview(data), spec, LIMITS).pixels == decoded).all()


@pytest.mark.parametrize("size", [(40, 30), (1, 3000), (3000, 1), (999, 1001)])
@pytest.mark.parametrize("rule", list(ResizeRule))
def test_a_file_of_any_shape_is_brought_to_the_spec(size: tuple[int, int], rule: ResizeRule) -> None:
    spec = CropSpec(48, 1920, resize_rule=rule)
    pixels = pixels_of(CropTask("m"), encoded(Image.new("L", size, 77)), spec, LIMITS).pixels
    assert pixels.shape[0] == 48
    assert 1 <= pixels.shape[1] <= 1920
    assert rule is ResizeRule.FIT_HEIGHT or pixels.shape[1] == 1920
    assert (pixels == 77).all()


def test_a_file_over_the_limits_is_refused_by_their_keys() -> None:
    limits = RecognitionConfig(max_crop_bytes=1000, max_crop_px=100).file_limits
    for size, key in (((10, 11), "max_crop_px"), ((400, 400), "max_crop_bytes")):
        with pytest.raises(ImageTooLarge) as caught:
            pixels_of(CropTask("m"), encoded(Image.effect_noise(size, 90)), LINE, limits)
        assert caught.value.metadata["limit"] == key


def raw(height: int, pixel_format: PixelFormat, length: int) -> np.ndarray:
    return pixels_of(CropTask("m", height, pixel_format), memoryview(bytes(length)), LINE, LIMITS).pixels


@pytest.mark.parametrize(
    ("height", "pixel_format", "length"),
    [
        (48, PixelFormat.BGR, 48 * 10 * 3 - 1),
        (48, PixelFormat.BGR, 48 * 10 * 3 + 1),
        (48, PixelFormat.GRAY, 47),
        (0, PixelFormat.BGR, 0),
        (0, PixelFormat.BGR, 30),
        (48, PixelFormat.BGR, 0),
    ],
)
def test_raw_bytes_must_be_whole_columns(height: int, pixel_format: PixelFormat, length: int) -> None:
    with pytest.raises(InvalidImage):
        raw(height, pixel_format, length)


@pytest.mark.parametrize("size", [(1, 1), (48, 1), (1, 16384), (48, 16384), (200, 3)])
def test_odd_sizes_are_brought_to_the_spec(size: tuple[int, int]) -> None:
    pixels = raw(size[0], PixelFormat.GRAY, size[0] * size[1])
    assert pixels.shape[0] == 48
    assert 1 <= pixels.shape[1] <= 1920
    assert pixels.shape[2] == 3


def test_pixels_that_fit_are_not_copied() -> None:
    data = bytearray(48 * 10 * 3)
    pixels = pixels_of(CropTask("m", 48, PixelFormat.BGR), data, LINE, LIMITS).pixels
    assert np.shares_memory(pixels, np.frombuffer(data, dtype=np.uint8))


def test_channels_are_brought_to_the_order_of_the_model() -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    spec = CropSpec(32, 32, PixelFormat.RGB, ResizeRule.STRETCH)
    assert to_spec(pixels, PixelFormat.BGR, spec).pixels[0, 0].tolist() == [0, 0, 255]
    assert to_spec(pixels, PixelFormat.RGB, spec).pixels is pixels


TURNING = CropSpec(48, 1920, turn_ratio=1.5)


def test_what_is_tall_is_turned_before_it_is_resized() -> None:
    image = Image.effect_noise((40, 200), 90).convert("RGB")
    turned = pixels_of(CropTask("m"), encoded(image), TURNING, LIMITS)
    assert turned.turned
    lying = image.transpose(Image.Transpose.ROTATE_90)  # anticlockwise
    as_it_lies = pixels_of(CropTask("m"), encoded(lying), TURNING, LIMITS)
    assert not as_it_lies.turned
    assert turned.pixels.shape == (48, 240, 3)
    assert (turned.pixels == as_it_lies.pixels).all()


@pytest.mark.parametrize(
    ("height", "width", "rotation", "turned"),
    [
        (60, 40, 0, True),
        (59, 40, 0, False),
        (60, 40, 90, False),  # turned when it was cut
        (48, 20, 0, False),  # cut to the spec, and not turned then
    ],
)
def test_what_was_cut_to_the_spec_or_turned_already_is_left(
    height: int, width: int, rotation: int, turned: bool
) -> None:
    task = CropTask("m", height, PixelFormat.BGR, rotation_degrees=rotation)
    assert pixels_of(task, bytes(height * width * 3), TURNING, LIMITS).turned is turned
