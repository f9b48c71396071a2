"""Reading headers: what the front does on its event loop, so no file may keep it busy."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images import header
from sluiceway_runtime.images.header import ImageHeader, read_header
from sluiceway_runtime.images.limits import ImageLimits, check_image

# A step of a walk is a dozen lines. Files as large as those below would have millions of steps.
MOST_LINES = 20 * header.MAX_CHUNKS
SIZE = 8 * 2**20


def lines_run(call: Callable[[], ImageHeader]) -> tuple[int, str]:
    """Count the lines of the package that a call runs, and say how it ended. More than `MOST_LINES` fail at once."""
    lines = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        assert lines <= MOST_LINES, "the walk goes on and on"
        return count

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        return count if Path(frame.f_code.co_filename).parent == Path(header.__file__).parent else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    except InvalidImage as error:
        return lines, str(error)
    finally:
        sys.settrace(before)
    return lines, "read"


def jpeg(middle: bytes = b"", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(file, "jpeg", **options)
    data = file.getvalue()
    return data[:2] + middle + data[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, idat_bytes: int) -> bytes:
    """A grey PNG of [H, W] whose data lies in many small chunks."""
    rows = np.concatenate((np.zeros((len(pixels), 1), np.uint8), pixels), axis=1)
    data = zlib.compress(rows.tobytes(), 0)
    parts = [data[at : at + idat_bytes] for at in range(0, len(data), idat_bytes)]
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", size), *(chunk(b"IDAT", part) for part in parts), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(entries: int) -> bytes:
    """As many entries as a directory may have that is read at all; the orientation is none of them."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + struct.pack("<HHII", 1, 3, 1, 1) * entries + b"\0\0\0\0"


def exif_segment(entries: int) -> bytes:
    body = b"Exif\0\0" + exif(entries)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def avif(associations: bytes = struct.pack(">HBBB", 1, 2, 1, 2), width: int = 64, height: int = 48) -> bytes:
    """The boxes of a picture without its data; item 1 is the picture."""
    size = box(b"ispe", struct.pack(">III", 0, width, height))
    properties = box(b"ipco", size + box(b"irot", b"\1"))
    properties += box(b"ipma", struct.pack(">II", 0, 2**31) + associations)
    return FTYP + box(b"meta", bytes(4) + box(b"pitm", struct.pack(">IH", 0, 1)) + box(b"iprp", properties))


def directories(count: int) -> bytes:
    """A TIFF of many small directories, none of which holds a page."""
    step = 2 + 12 + 4
    parts = [
        struct.pack("<HHHIII", 1, 254, 4, 1, 1, 8 + step * (index + 1) if index + 1 < count else 0)
        for index in range(count)
    ]
    return b"II*\0\x08\0\0\0" + b"".join(parts)


FTYP = box(b"ftyp", b"avif\0\0\0\0mif1")
CODE_STREAM = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 47, 0, 64, 48, 0, 0, 64, 48, 0, 0, 3) + bytes(9)
PNG_START = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 0, 0, 0, 0))
WEBP_START = b"RIFF" + struct.pack("<I", SIZE) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(10)
ENDLESS: dict[str, Callable[[], bytes]] = {
    "fill bytes": lambda: b"\xff\xd8" + b"\xff" * SIZE,
    "restart markers": lambda: b"\xff\xd8\xff" + b"\xd0\xff" * (SIZE // 2),
    "empty segments": lambda: b"\xff\xd8" + b"\xff\xe2\0\2" * (SIZE // 4),
    "segments of no length": lambda: b"\xff\xd8" + b"\xff\xe2\0\0" * (SIZE // 4),
    "bytes of no marker": lambda: b"\xff\xd8\xff\xe2\0\2" + bytes(SIZE),
    "zeros after markers": lambda: b"\xff\xd8\xff" + b"\0\xff" * (SIZE // 2),
    "full segments of EXIF": lambda: b"\xff\xd8" + exif_segment(4096) * (SIZE // 49_172),
    "empty chunks of a PNG": lambda: PNG_START + struct.pack(">I4sI", 0, b"teXt", 0) * (SIZE // 12),
    "EXIF in a PNG": lambda: PNG_START + chunk(b"eXIf", exif(4096)) * (SIZE // 49_178),
    "empty chunks of a WebP": lambda: WEBP_START + b"XMP \0\0\0\0" * (SIZE // 8),
    "empty blocks of a GIF": lambda: b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * (SIZE // 3),
    "blocks of a byte in a GIF": lambda: b"GIF89a\1\0\1\0\0\0\0\x21\xfe" + b"\1x" * (SIZE // 2),
    "empty boxes": lambda: FTYP + struct.pack(">I4s", 8, b"free") * (SIZE // 8),
    "boxes in boxes": lambda: FTYP + struct.pack(">I4s", 0, b"meta") * (SIZE // 8),
    "properties of many items": lambda: avif(struct.pack(">HB", 7, 0) * (SIZE // 3)),
    "parts of a JPEG 2000 tile": lambda: CODE_STREAM + (b"\xff\x90\0\x0a\0\0\0\0\0\x0e\0\1\xff\x93") * (SIZE // 14),
    "comments of a JPEG 2000": lambda: CODE_STREAM + b"\xff\x64\0\2" * (SIZE // 4),
    "directories of a TIFF": lambda: directories(SIZE // 18),
    "EXIF in a WebP": lambda: WEBP_START + (b"EXIF" + struct.pack("<I", 49_166) + exif(4096)) * (SIZE // 49_174),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_no_file_takes_more_than_so_many_steps(name: str) -> None:
    data = ENDLESS[name]()
    assert len(data) > SIZE * 0.9
    lines_run(lambda: read_header(data))


@pytest.mark.parametrize(
    "name",
    [
        "restart markers",
        "empty segments",
        "empty chunks of a PNG",
        "empty chunks of a WebP",
        "blocks of a byte in a GIF",
        "empty boxes",
        "parts of a JPEG 2000 tile",
        "comments of a JPEG 2000",
        "directories of a TIFF",
    ],
)
def test_a_file_of_too_many_parts_is_refused(name: str) -> None:
    with pytest.raises(InvalidImage, match="more than"):
        read_header(ENDLESS[name]())


def test_fill_bytes_are_passed_over_in_one_step() -> None:
    # Any marker may have any number of them before it (ITU T.81, B.1.1.2).
    data = jpeg(b"\xff" * SIZE)
    lines, end = lines_run(lambda: read_header(data))
    assert (end, lines < 1000) == ("read", True)
    assert read_header(data) == ImageHeader("jpeg", 64, 48)


def test_real_files_of_many_parts_are_read() -> None:
    # The smallest chunks that libpng writes by itself have 8 KiB: 4,096 in the largest file that is accepted.
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024), np.uint8)
    data = png(pixels, 128)
    assert data.count(b"IDAT") > 8192
    assert read_header(data) == ImageHeader("png", 1024, 1024)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    # A colour profile has at most 255 segments; this many are all that a file of 32 MiB has room for if they are full.
    comments = (b"\xff\xfe" + struct.pack(">H", 2**16 - 1) + bytes(2**16 - 3)) * 512
    assert read_header(jpeg(comments, progressive=True)) == ImageHeader("jpeg", 64, 48)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_the_first_exif_says_how_a_picture_lies(kind: str) -> None:
    def turned(orientation: int) -> bytes:
        return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 1, orientation) + b"\0\0\0\0"

    if kind == "jpeg":
        bodies = [b"Exif\0\0" + turned(orientation) for orientation in (6, 3)]
        data = jpeg(b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies))
    else:
        data = PNG_START + chunk(b"eXIf", turned(6)) + chunk(b"eXIf", turned(3)) + chunk(b"IEND", b"")
    assert read_header(data).orientation == 6


def tiff(*entries: tuple[int, int, int]) -> bytes:
    """A directory of (tag, type, value), with one strip and one tile, as it may have both."""
    entries = (*entries, (273, LONG, 8), (324, LONG, 8))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


SHORT, LONG, SLONG, ASCII = 3, 4, 9, 2
WIDE = 50_000


@pytest.mark.parametrize("kind", [SHORT, LONG, SLONG])
def test_of_a_tag_that_stands_twice_the_first_counts(kind: int) -> None:
    # As it does for libtiff, which decodes. A size that is small and last must not hide one that is large and first.
    data = tiff((256, kind, WIDE), (256, SHORT, 64), (257, LONG, WIDE), (257, SHORT, 48))
    with pytest.raises((ImageTooLarge, InvalidImage)):
        check_image(data, ImageLimits())
    assert read_header(tiff((256, SHORT, 64), (256, kind, WIDE), (257, SHORT, 48))).width_px == 64


def test_a_first_entry_of_no_use_hides_the_tag() -> None:
    with pytest.raises(InvalidImage, match="no size"):
        read_header(tiff((256, ASCII, 64), (256, SHORT, 64), (257, SHORT, 48)))


@pytest.mark.parametrize("order", [1, -1])
def test_the_tiles_of_a_tiff_are_no_larger_than_a_picture_may_be(order: int) -> None:
    # A decoder takes the memory of a whole tile however small the picture; 750 kB of zeros fill 770 MB of it.
    size, tile = ((256, SHORT, 64), (257, SHORT, 48)), ((322, LONG, WIDE), (323, SHORT, 64))
    assert check_image(tiff(*size, *tile), ImageLimits()).tile_px == WIDE * 64
    with pytest.raises(ImageTooLarge, match="tiles have 3200000 pixels; at most 3199999"):
        check_image(tiff(*(size + tile)[::order]), ImageLimits(max_pixels=WIDE * 64 - 1))
    for odd in ([(322, SLONG, WIDE), tile[1]], [tile[0]], [tile[1]]):
        with pytest.raises(InvalidImage, match="no size of its tiles"):
            read_header(tiff(*size, *odd))
    with pytest.raises(InvalidImage, match="more than 4096 entries"):
        read_header(tiff(*size, *[(1, SHORT, 1)] * 4095, *tile))
