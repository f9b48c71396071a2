"""The animated PNG that ended any process which showed it to OpenCV 5.0."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from sluiceway_detection.images import ImageLimits, decode_image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_an_animation_whose_first_frame_is_misnamed_is_read_by_its_picture() -> None:
    """Fuzzing found it: `fCTL` instead of `fcTL`, so that the frames are one short. It is decoded here, in the test's
    own process, so that a decoder that falls over takes the test with it."""
    width, height = 14, 9
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    frame = struct.pack(">IIIIHHBB", width, height, 0, 0, 0, 1, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            chunk(b"acTL", struct.pack(">II", 3, 0)),
            chunk(b"fCTL", struct.pack(">I", 0) + frame),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"fcTL", struct.pack(">I", 1) + frame),
            chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(rows)),
            chunk(b"fcTL", struct.pack(">I", 3) + frame),
            chunk(b"fdAT", struct.pack(">I", 4) + zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )
    assert np.array_equal(decode_image(file, ImageLimits()), pixels[:, :, ::-1])
