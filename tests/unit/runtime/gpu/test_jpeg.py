"""`JpegDecoder` with torchvision's CPU decoder in place of nvJPEG: all but the streams is the same."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import PlainJpeg, plain_jpeg

pytestmark = [pytest.mark.torch, pytest.mark.timeout(280)]

LIMITS = ImageLimits()


def plain(
    size: tuple[int, int] = (90, 64), mode: str = "RGB", orientation: int | None = None, **options: Any
) -> PlainJpeg:
    """Of a picture that is different in every corner, so that turning shows."""
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    image = Image.fromarray(np.stack((x, y, 220 - (x + y) / 2), axis=2).astype(np.uint8)).convert(mode)
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    file = io.BytesIO()
    image.save(file, "jpeg", **options)
    made = plain_jpeg(file.getvalue(), LIMITS)
    assert made is not None
    return made


def broken(jpeg: PlainJpeg) -> PlainJpeg:
    """With a frame of no known coding, though its header was taken: no decoder reads it."""
    return jpeg._replace(data=jpeg.data.replace(b"\xff\xc0", b"\xff\xc3", 1))


@pytest.fixture(scope="module")
def decoder() -> Any:
    from sluiceway_runtime.gpu.jpeg import JpegDecoder

    return JpegDecoder("cpu", threads=2)


@pytest.mark.parametrize("options", [{}, {"mode": "L"}, {"subsampling": 0}, {"subsampling": 1}])
def test_pixels_are_those_of_the_cpus_decoder(decoder: Any, options: dict[str, Any]) -> None:
    jpeg = plain(**options)
    (found,) = decoder.decode([jpeg])
    expected = decode_image(jpeg.data, LIMITS)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((64, 90, 3), np.uint8, True)
    assert np.abs(found.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(decoder: Any, orientation: int) -> None:
    jpeg = plain(orientation=orientation)
    (found,) = decoder.decode([jpeg])
    expected = decode_image(jpeg.data, LIMITS)
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).mean() < 1


def test_a_chunk_has_no_more_pixels_than_are_allowed(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.gpu import jpeg as module

    together: list[int] = []
    decode = module.decode_jpeg
    monkeypatch.setattr(
        module, "decode_jpeg", lambda files, **kwds: together.append(len(files)) or decode(files, **kwds)
    )
    monkeypatch.setattr(module, "CHUNK_PIXELS", 100 * 100)
    sizes = [(50, 50)] * 5 + [(101, 100), (100, 100), (100, 1)]
    found = list(decoder.decode([plain(size) for size in sizes]))
    # Four of 2,500 pixels; one; the one that is too large, which nobody decodes here; one that fills a chunk; the last.
    assert together == [4, 1, 1, 1]
    assert [None if pixels is None else pixels.shape[1::-1] for pixels in found] == [*sizes[:5], None, *sizes[6:]]


def test_what_fails_is_left_to_the_cpu_with_its_chunk_alone(
    decoder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sluiceway_runtime.gpu import jpeg as module

    monkeypatch.setattr(module, "CHUNK_PIXELS", 2 * 90 * 64)
    monkeypatch.setattr(decoder, "_failed", 0)
    caplog.set_level(logging.WARNING)
    good = plain()
    found = list(decoder.decode([good, broken(good), good, good]))
    assert [pixels is None for pixels in found] == [True, True, False, False]
    for _ in range(3):
        assert list(decoder.decode([broken(good)])) == [None]
    # Each time that the number has doubled.
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        f"cpu failed to decode {count} times" for count in (1, 2, 4)
    ]
    # Streams are given back.
    assert decoder._streams.qsize() == 2


def test_no_memory_is_no_fault_of_a_file(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sluiceway_runtime.gpu import jpeg as module

    def full(files: Any, **_: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(module, "decode_jpeg", full)
    assert list(decoder.decode([plain(), plain()])) == [None, None]


def test_a_picture_of_another_size_than_its_header_is_left_to_the_cpu(decoder: Any) -> None:
    good = plain()
    wrong = good._replace(data=plain((64, 90)).data)
    first, second, third = decoder.decode([good, wrong, good])
    assert (first is None, second is None, third is None) == (False, True, False)


def test_a_grey_picture_is_its_first_channel(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.gpu import jpeg as module

    decode = module.decode_jpeg

    def first_alone(files: Any, **options: Any) -> Any:
        decoded = decode(files, **options)
        for each in decoded:
            each[1:] = 7
        return decoded

    monkeypatch.setattr(module, "decode_jpeg", first_alone)
    jpeg = plain(mode="L", orientation=6)
    (found,) = decoder.decode([jpeg])
    assert np.abs(found.astype(int) - decode_image(jpeg.data, LIMITS)).mean() < 1


def test_a_decoder_that_is_wrong_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.gpu import jpeg as module

    decode = module.decode_jpeg
    monkeypatch.setattr(module, "decode_jpeg", lambda files, **kwds: [255 - each for each in decode(files, **kwds)])
    with pytest.raises(RuntimeError, match="other pixels than the CPU"):
        module.JpegDecoder("cpu")
