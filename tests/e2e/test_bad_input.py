"""Whatever a client sends, it gets its own clear error, and the next request is served."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluiceway import ApiCall, Client, Options, errors


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


TRUNCATED = object()
CASES = {
    "text file": (b"This is not an image.\n", Options(), errors.InvalidImage, "INVALID_ARGUMENT", "INVALID_IMAGE"),
    "truncated JPEG": (TRUNCATED, Options(), errors.InvalidImage, "INVALID_ARGUMENT", "INVALID_IMAGE"),
    "0 bytes": (b"", Options(), errors.InvalidImage, "INVALID_ARGUMENT", "INVALID_IMAGE"),
    "bomb": (png_header(50_000, 50_000), Options(), errors.ImageTooLarge, "INVALID_ARGUMENT", "IMAGE_TOO_LARGE"),
    "unknown class": (None, Options(classes=("gryphon",)), errors.InvalidInput, "INVALID_ARGUMENT", "INVALID_OPTION"),
    "size not offered": (None, Options(image_size=77), errors.InvalidInput, "INVALID_ARGUMENT", "INVALID_OPTION"),
    "confidence 7": (None, Options(confidence=7), errors.InvalidInput, "INVALID_ARGUMENT", "INVALID_OPTION"),
    "negative count": (None, Options(max_detections=-1), errors.InvalidOption, "INVALID_ARGUMENT", "INVALID_OPTION"),
    "unknown API": (ApiCall("nobody"), Options(), errors.UnknownApi, "INVALID_ARGUMENT", "UNKNOWN_API"),
    "private URL": (
        "http://127.0.0.1:9/a.png", Options(), errors.UrlNotAllowed, "PERMISSION_DENIED", "URL_NOT_ALLOWED",
    ),
    "URL that is none": ("http://", Options(), errors.SluicewayError, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, up: Any, samples: Path) -> None:
    source, options, kind, code, reason = CASES[name]
    good = samples / "page.png"
    if source is TRUNCATED:
        source = (samples / "bus.jpg").read_bytes()[:20_000]
    with Client(up.address) as client:
        with pytest.raises(kind) as caught:
            client.process(good if source is None else source, options)
        error = caught.value
        assert isinstance(error, errors.SluicewayError)
        if code:
            assert (error.code, error.reason) == (code, reason)
        assert error.message
        assert "Traceback" not in error.message
        assert str(samples) not in error.message
        assert client.process(good).ok, "the next request must be served"


def test_one_bad_source_leaves_its_neighbours_alone(up: Any, samples: Path) -> None:
    good = samples / "page.png"
    with Client(up.address) as client:
        results = list(client.process_many([good, b"no image", good, "api:nobody", good]))
    assert [result.ok for result in results] == [True, False, True, False, True]
    assert {len(result.regions) for result in results if result.ok} == {len(results[0].regions)}


def test_a_source_above_every_limit_leaves_its_neighbours_alone(up: Any, samples: Path) -> None:
    good = samples / "page.png"
    with Client(up.address) as client:
        huge = bytes(client.describe().max_message_bytes + 1)
        results = list(client.process_many([good, huge, good]))
    assert [result.ok for result in results] == [True, False, True]
    assert isinstance(results[1].error, errors.ImageTooLarge)


def test_a_photograph_in_memory_is_taken(up: Any) -> None:
    with Client(up.address) as client:
        result = client.process(np.zeros((3000, 4000, 3), np.uint8))
    assert (result.width, result.height) == (4000, 3000)
