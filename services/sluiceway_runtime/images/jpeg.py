"""The markers of a JPEG file."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import ImageHeader, too_many
from sluiceway_runtime.images.tiff import exif_orientation

__all__ = ["MAX_SCANS", "MAX_SEGMENTS", "JpegFrame", "check_scans", "has_all_scans", "read_frame", "read_jpeg"]

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; DHT, JPG and DAC share the range
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and restart markers carry no length
_FILL = re.compile(rb"\xff+")
_SCAN_BEGINS, _IMAGE_ENDS, _EXIF, _ADOBE = 0xDA, 0xD9, 0xE1, 0xEE
# Ours, and more than real files have; each is a microsecond. So many segments of 64 KiB are 256 MiB.
MAX_SEGMENTS = 4096  # before the first scan
# A progressive file has about ten. Each is a pass over all pixels, and an empty one takes ten bytes: of 100 megapixels,
# 400 of them took five seconds, and a file of a megabyte kept a worker busy until it was replaced.
MAX_SCANS = 200
_SCAN = b"\xff\xda\0"
_COEFFICIENTS = 64


class JpegFrame(NamedTuple):
    """How a JPEG stores its pixels (ITU T.81, B.2.2).

    Attributes:
        marker: the kind of its coding: 0xC0 is baseline, 0xC1 extended, 0xC2 progressive.
        bits: of a sample.
        channels: their identifiers, a byte each.
        sampling: of each channel a byte, columns in its upper half and rows in its lower.
        adobe: the transform that Adobe's segment names (0: none, 1: YCbCr, 2: YCCK); None without that segment.
        scans_at: where the marker of the first scan is.
    """

    marker: int
    bits: int
    channels: bytes
    sampling: bytes
    adobe: int | None = None
    scans_at: int = 0


def read_jpeg(data: bytes) -> ImageHeader:
    """See `read_header`."""
    orientation, size, position = None, None, 2
    for marker, body, end in _segments(data):
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, body + 1)
            size = size or (width, height)
        elif marker == _EXIF and orientation is None and data[body : body + 6] == b"Exif\0\0":
            orientation = exif_orientation(memoryview(data)[body + 6 : end])
        position = body
    if size is None:
        raise InvalidImage("the JPEG holds no picture")
    # Inside entropy-coded data FF is always followed by 00 or a restart marker, so an end marker there is the real one.
    # Decoders fill what is missing with grey and say nothing to their caller: this is how we know.
    unended = data.rfind(b"\xff\xd9", position) < 0
    return ImageHeader("jpeg", size[0], size[1], orientation or 1, unended=unended)


def read_frame(data: bytes) -> JpegFrame:
    """How a JPEG is stored; only of one that `read_jpeg` took, and maybe of no channels if the frame is cut short."""
    frame, adobe, body = None, None, 0
    for marker, body, end in _segments(data):
        if marker in _SOF and frame is None:
            count = data[body + 5]
            channels = data[body + 6 : min(body + 6 + 3 * count, end)]
            frame = JpegFrame(marker, data[body], channels[::3], channels[1::3])
        elif marker == _ADOBE and data[body : body + 5] == b"Adobe" and end >= body + 12:
            adobe = data[body + 11]
    if frame is None:
        raise InvalidImage("the JPEG holds no picture")
    return frame._replace(adobe=adobe, scans_at=body - len(_SCAN) - 1)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment, and where its body begins and ends, down to the head of the first scan."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        # A marker may have any number of fill bytes before its code, so they are no steps.
        fill = _FILL.match(data, position) if position >= 0 else None
        if fill is None:
            raise InvalidImage("the image header is cut off")
        position = fill.end()
        marker = data[position]
        if marker in _STANDALONE or marker == 0:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 1)
        if marker == _IMAGE_ENDS:
            raise InvalidImage("the JPEG holds no picture")
        end = position + 1 + max(length, 2)
        yield marker, position + 3, end
        if marker == _SCAN_BEGINS:  # what follows is entropy coded
            return
        position = end
    raise too_many("segments", MAX_SEGMENTS)


def check_scans(data: bytes) -> None:
    """Refuse a file that is decoded over and over.

    Raises:
        InvalidImage: more than `MAX_SCANS`.
    """
    if data.count(_SCAN) > MAX_SCANS:
        raise InvalidImage(f"the JPEG has more than {MAX_SCANS} scans")


def has_all_scans(data: bytes) -> bool:
    """Whether every coefficient of every channel comes in some scan, down to its last bit.

    Only of a file that is sound up to its last scan, and whose scans were counted.
    """
    frame = read_frame(data)
    # By channel, the bits that are still to come of each coefficient; all of them before the first scan.
    missing = {channel: [_COEFFICIENTS] * _COEFFICIENTS for channel in frame.channels}
    # Behind the header, where a thumbnail may have scans of its own, this pattern is nothing but a scan.
    for scan in re.finditer(re.escape(_SCAN), data[frame.scans_at :]):
        at = frame.scans_at + scan.start() + 4
        count = data[at] if at < len(data) else 0
        first, last, bits = (*data[at + 1 + 2 * count : at + 4 + 2 * count], 0, 0, 0)[:3]
        for channel in data[at + 1 : at + 1 + 2 * count : 2]:
            if channel in missing and last < _COEFFICIENTS:
                missing[channel][first : last + 1] = [bits & 15] * (last + 1 - first)
    return bool(missing) and not any(map(any, missing.values()))
