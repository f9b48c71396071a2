"""What a front makes of crops before any worker has seen them."""

from __future__ import annotations

import pytest
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.convert import EncodedCrop, RawCrop
from sluiceway_recognition.front.servicer import RecognitionServicer, _Wish
from sluiceway_recognition.types import CropSpec, Head, ModelFacts
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, SluicewayError
from sluiceway_runtime.pool import Work

FACTS = ModelFacts("m", "1", "f" * 64, Head.TEXT, CropSpec(48, 320), (64, 320), (), 0, "user", "", "cpu")


def work_of(crop: RawCrop | EncodedCrop) -> Work:
    servicer = RecognitionServicer(None, RecognitionConfig(max_crop_bytes=10_000_000))  # type: ignore[arg-type]
    ((crop_id, work),) = servicer._work([crop], FACTS, _Wish(1, characters=False))
    assert crop_id == crop.id
    if isinstance(work, SluicewayError):
        raise work
    return work


def test_a_page_costs_its_bytes_and_runs_by_itself() -> None:
    small, page = work_of(EncodedCrop(0, bytes(5_000))), work_of(EncodedCrop(0, bytes(5_000_000)))
    assert small.cost == 48 * 320
    assert page.cost == 5_000_000 > RecognitionConfig().max_batch_px
    assert small.group == page.group


def test_files_are_handed_on_in_place() -> None:
    view = memoryview(bytes(100))[10:]
    (buffer,) = work_of(EncodedCrop(3, view)).payload.buffers
    assert buffer is view


def test_a_file_that_is_none_fails_before_a_worker_sees_it() -> None:
    for data in (None, b"", memoryview(b"")):
        with pytest.raises(InvalidImage):
            work_of(EncodedCrop(0, data))
    with pytest.raises(ImageTooLarge) as caught:
        work_of(EncodedCrop(0, bytes(10_000_001)))
    assert caught.value.metadata == {"limit": "max_crop_bytes", "max": "10000000"}
