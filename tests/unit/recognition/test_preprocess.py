"""Pixels and files of crops, hostile ones among them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from sluiceway_recognition.preprocess import CropLimits, decode_file, pixels_of, to_spec
from sluiceway_recognition.types import CropSpec, CropTask, PixelFormat, ResizeRule
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage

LIMITS = CropLimits(max_px=1_000_000, max_file_bytes=1_000_000)
LINE = CropSpec(48, 1920)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_format_of_the_contract_is_read(kind: str) -> None:
    pixels = decode_file(encoded(Image.new("RGB", (40, 30), (200, 100, 50)), kind), LIMITS)
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels.reshape(-1, 3).astype(int) - (200, 100, 50)).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    halves = Image.new("L", (8, 4))
    halves.paste(255, (4, 0, 8, 4))
    pixels = decode_file(encoded(halves.convert(mode), "TIFF" if mode == "CMYK" else "PNG"), LIMITS)
    assert pixels.shape == (4, 8, 3)
    assert (pixels[:, :4].max(), pixels[:, 4:].min()) == (0, 255)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF")])
def test_sixteen_bits_are_scaled_to_eight(mode: str, kind: str) -> None:
    # As a detection server scales them. Cut off at 255, everything but black would be white.
    grey = np.full((10, 20), 0x8040, ">u2" if mode == "I;16B" else "<u2")
    grey[:, :3] = 0x01FF
    image = Image.frombytes(mode, (20, 10), grey.tobytes())
    exif = image.getexif()
    exif[0x0112] = 6
    pixels = decode_file(encoded(image, kind, exif=exif), LIMITS)
    assert pixels.shape == (20, 10, 3)
    assert (pixels[:3] == 0x01).all()
    assert (pixels[3:] == 0x80).all()


def test_transparent_is_white() -> None:
    assert decode_file(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0))), LIMITS).min() == 255


def test_exif_orientation_is_honoured() -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode_file(encoded(image, "JPEG", exif=exif), LIMITS).shape == (20, 10, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_exif_is_no_reason_to_refuse_a_crop(kind: str) -> None:
    image = Image.new("RGB", (20, 10))
    assert decode_file(encoded(image, kind, exif=b"Exif\0\0garbage"), LIMITS).shape == (10, 20, 3)
    # The maker's name as a number.
    entries = struct.pack("<HHIf", 271, 11, 1, 2.5) + struct.pack("<HHII", 274, 3, 1, 6)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"
    assert decode_file(encoded(image, kind, exif=exif), LIMITS).shape == (20, 10, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    image = Image.effect_noise((20, 10), 90)
    exif = image.getexif()
    exif[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    assert (decode_file(encoded(image, "PNG", exif=exif), LIMITS)[..., 0] == turned).all()


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 10_000), (50_000, 50_000)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge):
        decode_file(bomb(*size), LIMITS)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    # Each is a pass over all pixels, and these are empty.
    data = encoded(Image.effect_noise((64, 48), 90), "JPEG", progressive=True)
    at = data.rfind(b"\xff\xda")
    scan = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
    assert decode_file(data[:-2] + scan * 100 + data[-2:], LIMITS).shape == (48, 64, 3)
    with pytest.raises(InvalidImage, match="more than 200 scans"):
        decode_file(data[:-2] + scan * 200 + data[-2:], LIMITS)


def test_tiles_larger_than_a_crop_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each is decoded as a whole, however small the picture.
    entries = [(256, 64), (257, 48), (258, 8), (259, 1), (262, 1), (322, 1008), (323, 1008), (324, 0), (325, 9)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)
    monkeypatch.setattr(TiffImageFile, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="tiles"):
        decode_file(data, LIMITS)


def test_a_large_file_is_refused_unread() -> None:
    with pytest.raises(ImageTooLarge):
        decode_file(b"x" * 1_000_001, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is text",
        b"GIF89a" + bytes(40),
        encoded(Image.effect_noise((90, 60), 50), "JPEG")[:900],
        encoded(Image.effect_noise((90, 60), 50), "PNG")[:900],
        bomb(8, 8),
        bomb(0, 8),
    ],
)
def test_what_is_no_whole_image_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode_file(data, LIMITS)


def raw(height: int, pixel_format: PixelFormat, length: int) -> np.ndarray:
    return pixels_of(CropTask("m", height, pixel_format), memoryview(bytes(length)), LINE, LIMITS)


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
    pixels = pixels_of(CropTask("m", 48, PixelFormat.BGR), data, LINE, LIMITS)
    assert np.shares_memory(pixels, np.frombuffer(data, dtype=np.uint8))


def test_channels_are_brought_to_the_order_of_the_model() -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    spec = CropSpec(32, 32, PixelFormat.RGB, ResizeRule.STRETCH)
    assert to_spec(pixels, PixelFormat.BGR, spec)[0, 0].tolist() == [0, 0, 255]
    assert to_spec(pixels, PixelFormat.RGB, spec) is pixels
