"""Decoding: every format, every odd kind, and everything that must be refused."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images import decode
from sluiceway_runtime.images.decode import decode_image, read_image
from sluiceway_runtime.images.header import ImageHeader, read_header
from sluiceway_runtime.images.jpeg import MAX_SCANS
from sluiceway_runtime.images.limits import ImageLimits, check_image
from sluiceway_runtime.images.notices import IMAGE_END_MISSING

LIMITS = ImageLimits()
FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("jpeg", {"quality": 95, "subsampling": 0}),
    ("jpeg", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("png", {}),
    ("webp", {"lossless": True}),
    ("webp", {"quality": 95}),
    ("bmp", {}),
    ("tiff", {}),
    ("tiff", {"compression": "tiff_lzw"}),
    ("tiff", {"compression": "tiff_deflate"}),
    ("tiff", {"compression": "packbits"}),
    ("tiff", {"compression": "lzma"}),
    ("tiff", {"compression": "zstd"}),
    ("avif", {"quality": 100, "subsampling": "4:4:4"}),
    ("jpeg2000", {}),
    ("jpeg2000", {"no_jp2": True, "tile_size": (16, 32)}),
]
IDS = [f"{kind}-{'-'.join(map(str, options.values()))}" for kind, options in FORMATS]


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Smooth, so that lossy formats stay close, and different in every corner, so that turning shows."""
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return Image.fromarray(np.stack((x, y, 220 - (x + y) / 2), axis=2).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bgr(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=IDS)
def test_pixels_come_out_as_they_went_in(kind: str, options: dict[str, Any]) -> None:
    decoded = decode_image(encode(picture(), kind, **options), LIMITS)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert difference(decoded, bgr(picture())) <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(picture(), kind, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    decoded = decode_image(data, LIMITS)
    tagged = picture()
    tagged.getexif()[274] = orientation
    assert difference(decoded, bgr(ImageOps.exif_transpose(tagged))) <= 16  # corners differ by 200
    assert decoded.flags.c_contiguous
    # The header alone already tells the size and the turn.
    header = read_header(data)
    assert (header.width_px, header.height_px) == (64, 48)
    assert header.orientation == orientation or (kind == "avif" and header.orientation >> 2 == orientation // 5)


def test_big_endian_exif_and_nonsense_exif() -> None:
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    assert decode_image(encode(picture(), "jpeg", exif=b"Exif\0\0" + tiff), LIMITS).shape == (64, 48, 3)
    for bad in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0" + tiff[:9]):
        assert decode_image(encode(picture(), "jpeg", exif=bad), LIMITS).shape == (48, 64, 3)
    wild = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 99, 0)
    assert decode_image(encode(picture(), "jpeg", exif=b"Exif\0\0" + wild), LIMITS).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_odd_exif_is_no_reason_to_refuse_a_picture(kind: str) -> None:
    # The maker's name as a number.
    entries = struct.pack("<HHIf", 271, 11, 1, 2.5) + struct.pack("<HHII", 274, 3, 1, 6)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"
    assert decode_image(encode(picture(), kind, exif=exif), LIMITS).shape == (64, 48, 3)
    assert decode_image(encode(picture(), kind, exif=b"Exif\0\0garbage"), LIMITS).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", kind) for kind in ("jpeg", "png", "bmp", "tiff")]
    + [("LA", "png"), ("RGBA", "png"), ("RGBA", "tiff"), ("RGBA", "bmp"), ("P", "png"), ("P", "bmp")]
    + [("1", "png"), ("1", "tiff"), ("CMYK", "jpeg"), ("CMYK", "tiff")],
)
def test_other_colour_modes_become_bgr(mode: str, kind: str) -> None:
    image = picture().convert(mode)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {}
    assert difference(decode_image(encode(image, kind, **options), LIMITS), bgr(image)) <= 8


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    deep = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    decoded = decode_image(encode(Image.fromarray(deep), kind), LIMITS)
    assert difference(decoded[:, :, 0], (deep >> 8).astype(np.uint8)) <= 1


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "png"), ("I;16", "tiff"), ("I;16B", "tiff")])
def test_sixteen_bits_are_scaled_whatever_their_order_and_turned(mode: str, kind: str) -> None:
    grey = np.full((10, 20), 0x8040, ">u2" if mode == "I;16B" else "<u2")
    grey[:, :3] = 0x01FF
    exif = Image.Exif()
    exif[274] = 6
    decoded = decode_image(encode(Image.frombytes(mode, (20, 10), grey.tobytes()), kind, exif=exif), LIMITS)
    assert decoded.shape == (20, 10, 3)
    assert (decoded[:3] <= 0x02).all()
    assert (decoded[3:] == 0x80).all()


def test_sixteen_bits_are_scaled_where_pillow_has_to_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_opencv", lambda data: None)
    deep = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    decoded = decode_image(encode(Image.fromarray(deep), "png"), LIMITS)
    assert difference(decoded[:, :, 0], (deep >> 8).astype(np.uint8)) == 0


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "gif"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (64, 48), (200, 30, 30)), Image.new("RGB", (64, 48), (30, 30, 200))
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert difference(decode_image(data, LIMITS), bgr(first)) <= 2


def test_what_opencv_cannot_read_goes_to_pillow() -> None:
    image = picture().convert("F")
    data = encode(image, "tiff")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None
    assert difference(decode_image(data, LIMITS), bgr(image)) <= 1


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=IDS)
def test_no_truncated_file_is_taken(kind: str, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind, **options)
    decode_image(data, LIMITS)
    cuts = {*range(0, min(len(data), 700), 3), *range(700, len(data), len(data) // 40), len(data) - 1, len(data) - 2}
    if kind == "jpeg":
        cuts -= {len(data) - 1, len(data) - 2}  # its end marker alone: see below
    accepted = []
    for cut in sorted(cuts):
        try:
            decode_image(data[:cut], LIMITS)
        except InvalidImage:
            continue
        accepted.append(cut)
    assert accepted == []


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    # Each is a pass over all pixels, and these are empty.
    data = encode(picture(), "jpeg", progressive=True)
    at = data.rfind(b"\xff\xda")
    scan = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
    room = MAX_SCANS - data.count(b"\xff\xda\0")
    assert decode_image(data[:-2] + scan * room + data[-2:], LIMITS).shape == (48, 64, 3)
    with pytest.raises(InvalidImage, match="more than 200 scans"):
        decode_image(data[:-2] + scan * (room + 1) + data[-2:], LIMITS)


def test_a_thumbnail_does_not_hide_truncation() -> None:
    # Its own end marker stands in the header of the file, before the pixels that are missing.
    thumbnail = encode(picture(16, 12), "jpeg")
    data = encode(picture(), "jpeg", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" + thumbnail)
    assert thumbnail in data
    decode_image(data, LIMITS)
    with pytest.raises(InvalidImage, match="cut off"):
        decode_image(data[:-40], LIMITS)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read_if_its_pixels_are_there(progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    # A thumbnail with scans of its own must not be taken for the picture.
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" + encode(picture(16, 12), "jpeg")
    data = encode(Image.fromarray(noise), "jpeg", quality=90, progressive=progressive, exif=exif)
    whole = read_image(data, LIMITS)
    assert whole.notices == ()
    for cut in (1, 2):
        unended = read_image(data[:-cut], LIMITS)
        assert unended.notices == (IMAGE_END_MISSING,)
        assert difference(unended.pixels, whole.pixels) <= 2  # two releases of libjpeg
    refused = 0
    for cut in range(3, 400):
        try:
            unended = read_image(data[:-cut], LIMITS)
        except InvalidImage:
            refused += 1
            continue
        # The last bits of a progressive file may be the last bits of coefficients, and nothing to be seen.
        assert difference(unended.pixels, whole.pixels) <= 2
    assert refused > 380


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused() -> None:
    data = encode(picture(), "jpeg", quality=90, progressive=True)
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xda\0", at)]
    assert len(starts) > 5
    for start in starts[1:]:
        # Its tables come with it.
        tables = data.rindex(b"\xff\xc4", 0, start)
        for end in (start, tables):
            with pytest.raises(InvalidImage, match=r"cut off|damaged"):
                decode_image(data[:end], LIMITS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"hello, I am a text file\n" * 10, "not a JPEG"),
        (b"GIF89a" + b"\0" * 60, "no picture"),
        (b"%PDF-1.7\n", "but a PDF document"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "no box meta"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "no box jp2c"),
        (b"\xff\x4f\xff\x51\0\x29", "cut off"),
        (b"\xff\xd8\xff", "cut off"),
        (b"\xff\xd8\xff\xd9" + b"\0" * 10, "no picture"),
        (b"\x89PNG\r\n\x1a\n", "does not start with a header|cut off"),
        (b"RIFF\x04\0\0\0WEBP", "no picture"),
        (b"BM" + b"\0" * 8, "cut off"),
        (b"BM" + b"\0" * 80, "no size"),
        (b"II*\0\xff\xff\xff\x7f", "cut off"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        decode_image(data, LIMITS)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_a_bomb_is_found_in_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(*arguments: object) -> None:
        raise AssertionError("nothing may be decoded")

    monkeypatch.setattr(cv2, "imdecode", decoder)
    monkeypatch.setattr(Image, "open", decoder)
    with pytest.raises(ImageTooLarge) as caught:
        decode_image(png_header(50_000, 50_000), LIMITS)
    assert caught.value.metadata == {"limit": "max_image_pixels", "max": str(LIMITS.max_pixels)}


def test_what_pillow_sees_larger_than_its_header_says_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its releases differ in which entry of a TIFF counts where a tag stands twice.
    def decoder(*arguments: object) -> None:
        raise AssertionError("nothing may be decoded")

    monkeypatch.setattr(decode, "check_image", lambda data, limits: ImageHeader("tiff", 8, 6))
    monkeypatch.setattr(Image.Image, "convert", decoder)
    with pytest.raises(InvalidImage, match="size"):
        decode_image(encode(picture(), "tiff"), LIMITS)


def test_opencvs_own_limits_are_an_error_of_the_image() -> None:
    # More columns than OpenCV takes (2^20): it raises, Pillow then finds the data missing.
    with pytest.raises(InvalidImage):
        decode_image(png_header(2**21, 8), LIMITS)


def test_pixels_that_do_not_come_are_refused() -> None:
    with pytest.raises(InvalidImage):
        decode_image(png_header(640, 480), LIMITS)


def test_limits_are_inclusive() -> None:
    data = encode(picture(), "png")
    check_image(data, ImageLimits(max_bytes=len(data), max_pixels=64 * 48))
    with pytest.raises(ImageTooLarge, match="bytes"):
        check_image(data, ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(ImageTooLarge, match="64 x 48"):
        check_image(data, ImageLimits(max_pixels=64 * 48 - 1))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jpeg2000"])
def test_damaged_files_raise_nothing_but_our_errors(kind: str) -> None:
    data = encode(picture(), kind)
    generator = np.random.default_rng(5)
    for _ in range(150):
        broken = bytearray(data)
        for place in generator.integers(0, len(data), 6):
            broken[place] = generator.integers(0, 256)
        try:
            assert decode_image(bytes(broken), ImageLimits(max_pixels=10**6)).ndim == 3
        except (InvalidImage, ImageTooLarge):
            continue
