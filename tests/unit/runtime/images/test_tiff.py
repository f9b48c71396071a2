"""TIFF: every way of storing pixels is read right, or refused in words."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images import libtiff
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.facts import ImageHeader
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.pillow import read_with_pillow
from sluiceway_runtime.images.tiff import pages_of

LIMITS = ImageLimits()
SHORT, LONG, LONG8 = 3, 4, 16


def tiff(
    pixels: np.ndarray, *, big: bool = False, order: str = "<", tags: dict[int, tuple[int, int]] | None = None
) -> bytes:
    """A file of one strip, [H, W] or [H, W, channels], in the depth of its type; `tags` are (type, value)."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(order)).tobytes()
    start = 16 if big else 8
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries: dict[int, tuple[int, Any]] = {
        256: (LONG, width),
        257: (LONG, height),
        258: (SHORT, pixels.dtype.itemsize * 8),
        259: (SHORT, 1),
        262: (SHORT, 1 if channels == 1 else 2),
        273: (LONG8 if big else LONG, start),
        277: (SHORT, channels),
        278: (LONG, height),
        279: (LONG8 if big else LONG, len(data)),
        339: (SHORT, kind),
        **(tags or {}),
    }
    body = b""
    for tag, (form, value) in sorted(entries.items()):
        room = struct.pack(order + {SHORT: "H", LONG: "I", LONG8: "Q"}[form], value)
        body += struct.pack(order + ("HHQ" if big else "HHI"), tag, form, 1) + room.ljust(8 if big else 4, b"\0")
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), start + len(data)
    )
    return head + data + count + body + bytes(8 if big else 4)


def encode(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "tiff", **options)
    return file.getvalue()


def page(number: int = 0) -> Image.Image:
    image = Image.new("L", (300, 200), 255)
    for row in range(20):
        ImageDraw.Draw(image).text((5, row * 10), f"page {number}, line {row} of it", fill=0)
    return image


def ramp(kind: str) -> np.ndarray:
    most = np.iinfo(kind).max if np.dtype(kind).kind in "ui" else 1
    return (np.linspace(0, 1, 64 * 16).reshape(16, 64) * most).astype(kind)


GREY = np.rint(np.linspace(0, 255, 64 * 16).reshape(16, 64))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_bytes_in_either_order_and_big_files(order: str, big: bool) -> None:
    if big and order == ">":
        with pytest.raises(InvalidImage, match="Motorola"):
            decode_image(tiff(ramp("uint8"), order=order, big=big), LIMITS)
        return
    decoded = decode_image(tiff(ramp("uint8"), order=order, big=big), LIMITS)
    assert np.abs(decoded[:, :, 0] - GREY).max() <= 1


@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_deeper_levels_are_brought_to_eight_bits_or_refused(kind: str) -> None:
    if kind == "float64":
        with pytest.raises(InvalidImage, match="unsupported kind"):
            decode_image(tiff(ramp(kind)), LIMITS)
        return
    decoded = decode_image(tiff(ramp(kind)), LIMITS)
    assert np.abs(decoded[:, :, 0] - GREY).max() <= 1


@pytest.mark.parametrize("most", [1, 255, 65535])
def test_floating_point_numbers_are_taken_in_the_range_that_they_are_in(most: int) -> None:
    decoded = decode_image(tiff((GREY / 255 * most).astype(np.float32)), LIMITS)
    assert np.abs(decoded[:, :, 0] - GREY).max() <= 1


def test_floating_point_numbers_beyond_any_range_are_stretched() -> None:
    numbers = (GREY * 1e6 - 5e7).astype(np.float32)
    numbers[0, 0], numbers[0, 1], numbers[0, 2] = np.nan, np.inf, -np.inf
    decoded = decode_image(tiff(numbers), LIMITS)[:, :, 0]
    assert np.abs(decoded[1:] - GREY[1:]).max() <= 2
    assert decoded[0, :3].tolist() == [0, 255, 0]
    assert (decode_image(tiff(np.full((4, 4), np.nan, np.float32)), LIMITS) == 0).all()
    assert (decode_image(tiff(np.full((4, 4), -3, np.float32)), LIMITS) == 0).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_where_the_least_is_white_it_is(kind: str) -> None:
    decoded = decode_image(tiff(ramp(kind), tags={262: (SHORT, 0)}), LIMITS)
    assert np.abs(decoded[:, :, 0] - (255 - GREY)).max() <= 1


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw", "tiff_deflate"])
def test_scans_of_one_bit(compression: str) -> None:
    scan = page().convert("1")
    decoded = decode_image(encode(scan, compression=compression), LIMITS)
    assert (decoded[:, :, 0] == np.asarray(scan.convert("L"))).all()


@pytest.mark.parametrize(
    ("number", "name"), [(50002, "JPEG XL"), (34712, "JPEG 2000"), (34661, "JBIG"), (1234, "1234")]
)
def test_other_compressions_are_refused_by_their_name(number: int, name: str) -> None:
    with pytest.raises(InvalidImage, match=f"compressed in a way that is not read here .*{name}"):
        decode_image(tiff(ramp("uint8"), tags={259: (SHORT, number)}), LIMITS)


def test_every_number_of_a_compression_is_read_right_or_refused() -> None:
    # The bytes are plain. Whatever another compression makes of them, it may not be a picture of one colour.
    for number in [*range(1, 12), *range(32760, 32960), *range(34600, 34940), *range(50000, 50010)]:
        if number in (2, 3, 4, 32773):
            continue  # any bytes are a fax, or runs of bytes
        try:
            decoded = decode_image(tiff(ramp("uint8"), tags={259: (SHORT, number)}), LIMITS)
        except InvalidImage:
            continue
        assert np.abs(decoded[:, :, 0] - GREY).max() <= 1, number


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "lzma"])
def test_damaged_strips_are_refused(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    scan = page().convert("1") if compression == "group4" else page()
    data = encode(scan, compression=compression)
    with Image.open(io.BytesIO(data)) as image:
        start, size = image.tag_v2[273][0], image.tag_v2[279][0]
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        damaged = bytearray(data)
        at = start + int(random.integers(0, size // 2))
        damaged[at : at + 16] = random.bytes(16)
        try:
            decode_image(bytes(damaged), LIMITS)
        except InvalidImage:
            refused += 1
    # In a damaged LZW stream every code may happen to be known, and another picture is what it says then.
    assert refused >= (30 if compression == "tiff_lzw" else 39)
    # Told by the error, and not by a line of libtiff in a log for each row.
    assert capfd.readouterr().err == ""


def test_libtiff_is_listened_to() -> None:
    assert libtiff._listen() is not None


def test_strips_that_are_not_there_are_refused() -> None:
    with pytest.raises(InvalidImage, match="1 of 2 strips"):
        decode_image(tiff(ramp("uint8"), tags={278: (LONG, 8)}), LIMITS)
    with pytest.raises(InvalidImage, match="1 of 16 strips"):
        decode_image(tiff(ramp("uint8"), tags={278: (LONG, 1)}), LIMITS)
    with pytest.raises(InvalidImage, match="1 of 3 strips"):
        decode_image(tiff(ramp("uint8"), tags={277: (SHORT, 3), 284: (SHORT, 2)}), LIMITS)


def frames_of(data: bytes, most: int = 100) -> list[int]:
    return [page.frame for page in pages_of(memoryview(data), most) if isinstance(page, ImageHeader)]


def with_thumbnails(*subfiles: int) -> bytes:
    """Pages and what is none, told apart by their size: 10, 20, ... pixels wide."""
    images = [Image.new("L", (10 * (index + 1), 8), 10 * (index + 1)) for index in range(len(subfiles))]
    data = bytearray(encode(images[0], save_all=True, append_images=images[1:], tiffinfo={254: 0}))
    at = 0
    for subfile in subfiles:
        at = data.index(struct.pack("<HHI", 254, 4, 1), at) + 8
        data[at : at + 4] = struct.pack("<I", subfile)
    return bytes(data)


@pytest.mark.parametrize(
    ("subfiles", "pages"),
    [((0, 1, 2), [0, 2]), ((1, 0, 1, 0), [1, 3]), ((1, 5, 4, 0), [3]), ((1, 1), [0]), ((2, 2, 2), [0, 1, 2])],
)  # fmt: skip
def test_thumbnails_and_masks_are_passed_over(subfiles: tuple[int, ...], pages: list[int]) -> None:
    data = with_thumbnails(*subfiles)
    assert frames_of(data) == pages
    assert frames_of(data, 1) == pages[:1]
    decoded = decode_image(data, LIMITS)
    assert decoded.shape == (8, 10 * (pages[0] + 1), 3)
    assert (decoded == 10 * (pages[0] + 1)).all()


def test_directories_in_a_circle_come_to_an_end() -> None:
    data = bytearray(with_thumbnails(0, 0))
    first, count = struct.unpack_from("<I", data, 4)[0], 0
    (entries,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * entries)
    (count,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    assert frames_of(bytes(data)) == [0, 1]
    assert decode_image(bytes(data), LIMITS).shape == (8, 10, 3)


def test_pages_by_themselves() -> None:
    data = bytearray(encode(page(0), save_all=True, append_images=[page(1), page(2)], compression="tiff_lzw"))
    for number, header in enumerate(pages_of(memoryview(data), 10)):
        assert isinstance(header, ImageHeader)
        assert (read_with_pillow(bytes(data), header)[:, :, 0] == np.asarray(page(number))).all()
    # One that cannot be read does not hide those after it.
    at = data.index(struct.pack("<HHI", 259, 3, 1), data.index(struct.pack("<HHI", 259, 3, 1)) + 1) + 8
    data[at : at + 2] = struct.pack("<H", 1234)
    assert [isinstance(header, ImageHeader) for header in pages_of(memoryview(data), 10)] == [True, False, True]
    # But no page can be found behind a directory that is not there.
    found = pages_of(memoryview(bytes(data)[: at - 40]), 10)
    assert [isinstance(header, ImageHeader) for header in found] == [True, False]


def test_colours_that_are_not_red_green_and_blue() -> None:
    rgb = Image.new("RGB", (16, 16), (200, 60, 30))
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for image in (lab, rgb.convert("YCbCr"), rgb.convert("CMYK"), rgb.quantize(2)):
        decoded = decode_image(encode(image), LIMITS)
        assert np.abs(decoded[0, 0].astype(int) - (30, 60, 200)).max() <= 4, image.mode
