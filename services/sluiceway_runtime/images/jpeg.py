"""The markers of a JPEG file."""

from __future__ import annotations

import re
import struct

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.facts import ImageHeader, too_many
from sluiceway_runtime.images.tiff import exif_orientation

__all__ = ["MAX_SCANS", "MAX_SEGMENTS", "check_scans", "has_all_scans", "read_jpeg"]

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; DHT, JPG and DAC share the range
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and restart markers carry no length
_FILL = re.compile(rb"\xff+")
# Ours, and more than real files have; each is a microsecond. So many segments of 64 KiB are 256 MiB.
MAX_SEGMENTS = 4096  # before the first scan
# A progressive file has about ten. Each is a pass over all pixels, and an empty one takes ten bytes: of 100 megapixels,
# 400 of them took five seconds, and a file of a megabyte kept a worker busy until it was replaced.
MAX_SCANS = 200
_SCAN = b"\xff\xda\0"
_COEFFICIENTS = 64


def read_jpeg(data: bytes) -> ImageHeader:
    """See `read_header`."""
    position, orientation, size = 2, None, None
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
        body = position + 3
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, body + 1)
            size = size or (width, height)
        elif marker == 0xE1 and orientation is None and data[body : body + 6] == b"Exif\0\0":
            orientation = exif_orientation(memoryview(data)[body + 6 : position + 1 + length])
        elif marker == 0xDA:  # start of scan: what follows is entropy coded
            break
        elif marker == 0xD9:
            raise InvalidImage("the JPEG holds no picture")
        position += 1 + max(length, 2)
    else:
        raise too_many("segments", MAX_SEGMENTS)
    if size is None:
        raise InvalidImage("the JPEG holds no picture")
    # Inside entropy-coded data FF is always followed by 00 or a restart marker, so an end marker there is the real one.
    # Decoders fill what is missing with grey and say nothing to their caller: this is how we know.
    unended = data.rfind(b"\xff\xd9", position) < 0
    return ImageHeader("jpeg", size[0], size[1], orientation or 1, unended=unended)


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
    channels, position = _channels(data)
    # By channel, the bits that are still to come of each coefficient; all of them before the first scan.
    missing = {channel: [_COEFFICIENTS] * _COEFFICIENTS for channel in channels}
    # Behind the header, where a thumbnail may have scans of its own, this pattern is nothing but a scan.
    for scan in re.finditer(re.escape(_SCAN), data[position:]):
        at = position + scan.start() + 4
        count = data[at] if at < len(data) else 0
        first, last, bits = (*data[at + 1 + 2 * count : at + 4 + 2 * count], 0, 0, 0)[:3]
        for channel in data[at + 1 : at + 1 + 2 * count : 2]:
            if channel in missing and last < _COEFFICIENTS:
                missing[channel][first : last + 1] = [bits & 15] * (last + 1 - first)
    return bool(missing) and not any(map(any, missing.values()))


def _channels(data: bytes) -> tuple[bytes, int]:
    """The channels that the header names, and where the first scan begins."""
    channels, position = b"", 2
    while 0 <= (position := data.find(b"\xff", position)) < len(data) - 3:
        marker = data[position + 1]
        if marker in _STANDALONE or marker in (0, 0xFF):
            position += 1
            continue
        if marker == 0xDA:
            break
        if marker in _SOF and not channels and position + 9 < len(data):
            channels = data[position + 10 : position + 10 + 3 * data[position + 9] : 3]
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))
    return channels, max(position, 0)
