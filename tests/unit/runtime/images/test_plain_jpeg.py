"""Which JPEG files go to a decoder that is not the CPU's."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sluiceway_runtime.images.jpeg import MAX_SCANS, read_frame
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import plain_jpeg

LIMITS = ImageLimits(max_bytes=20_000, max_pixels=5000)
FRAME = b"\xff\xc0"


def jpeg(mode: str = "RGB", size: tuple[int, int] = (80, 48), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(file, "jpeg", **options)
    return file.getvalue()


def changed(data: bytes, offset: int, value: int) -> bytes:
    """With another byte in its frame, `offset` behind the frame's marker."""
    at = data.index(FRAME) + 2 + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1}),
        ("RGB", {"subsampling": 2}),
        ("RGB", {"restart_marker_blocks": 2}),
        ("L", {}),
    ],
)
def test_ordinary_files_are_plain(mode: str, options: dict[str, Any]) -> None:
    data = jpeg(mode, **options)
    plain = plain_jpeg(memoryview(data), LIMITS)
    assert plain is not None
    assert (plain.data, plain.header.width_px, plain.header.height_px) == (data, 80, 48)
    assert plain.grey == (mode == "L")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_progressive_files_are_left_to_threads(mode: str) -> None:
    assert plain_jpeg(jpeg(mode, progressive=True), LIMITS) is None


def test_the_orientation_is_told() -> None:
    exif = Image.Exif()
    exif[274] = 6
    plain = plain_jpeg(jpeg(exif=exif), LIMITS)
    assert plain is not None
    assert plain.header.orientation == 6


def with_scans(count: int) -> bytes:
    data = jpeg()
    return data[:-2] + b"\xff\xda\0\x08\x01\1\0\0\0\0" * (count - 1) + data[-2:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg("CMYK"), id="four channels"),
        pytest.param(jpeg(keep_rgb=True), id="RGB as Adobe says it"),
        pytest.param(jpeg()[:-2], id="no end"),
        pytest.param(jpeg()[:300], id="cut off in its header"),
        pytest.param(jpeg(size=(80, 80)), id="too many pixels"),
        pytest.param(jpeg() + bytes(20_000), id="too many bytes"),
        pytest.param(with_scans(MAX_SCANS + 1), id="too many scans"),
        pytest.param(changed(jpeg(), 2, 12), id="twelve bits"),
        pytest.param(jpeg().replace(FRAME, b"\xff\xc9"), id="arithmetic coding"),
        pytest.param(changed(jpeg(), 9, 0x31), id="unusual sampling"),
        pytest.param(changed(jpeg(), 12, 0x21), id="unusual sampling of a colour"),
        pytest.param(changed(changed(changed(jpeg(), 8, ord("R")), 11, ord("G")), 14, ord("B")), id="RGB by its names"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(50), id="another format"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_the_rest_is_left_to_the_cpu(data: bytes) -> None:
    assert plain_jpeg(data, LIMITS) is None


def test_as_many_scans_as_are_read_are_plain() -> None:
    assert plain_jpeg(with_scans(MAX_SCANS), LIMITS) is not None


def test_a_frame_says_how_pixels_are_stored() -> None:
    colour = read_frame(jpeg(subsampling=2, progressive=True))
    assert (colour.marker, colour.bits, colour.channels, colour.sampling) == (0xC2, 8, b"\1\2\3", b"\x22\x11\x11")
    assert read_frame(jpeg("CMYK")).adobe is not None
    grey = jpeg("L")
    frame = read_frame(grey)
    assert (frame.channels, frame.adobe) == (b"\1", None)
    assert grey[frame.scans_at :].startswith(b"\xff\xda")
    assert np.frombuffer(grey[frame.scans_at :], np.uint8).size > 10
