"""Where the files of a batch are decoded: with a device that is told what it can."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from pdf_files import pdf_of
from PIL import Image
from sluiceway_detection.job import DetectionJob, RawPixels
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.decoders import Decoders, open_device_decoder
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.errors import InvalidImage, StartupError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import PlainJpeg
from sluiceway_runtime.pool import Payload

LIMITS = ImageLimits()
JOB = DetectionJob(Selection(0.3))


class Device:
    """Decodes as OpenCV does, and marks what it decoded in the first pixel; pictures of some widths it cannot."""

    def __init__(self, *cannot: int) -> None:
        self.cannot = cannot
        self.together: list[int] = []

    def decode(self, files: Sequence[PlainJpeg]) -> Iterator[np.ndarray | None]:
        self.together.append(len(files))
        for jpeg in files:
            if jpeg.header.width_px in self.cannot:
                yield None
                continue
            pixels = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
            pixels[0, 0] = (1, 2, 3)
            yield pixels


def encoded(width: int, kind: str = "jpeg", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), (width, 40), options.pop("colour", 200)).save(file, kind, **options)
    return file.getvalue()


Made = Callable[[Device | None], Decoders[tuple[int, bool, float, int]]]


@pytest.fixture
def decoders() -> Iterator[Made]:
    made = []

    def make(device: Device | None) -> Decoders[tuple[int, bool, float, int]]:
        made.append(Decoders(2, seen, limits=LIMITS, documents=DocumentLimits(), device=device))
        return made[-1]

    yield make
    for each in made:
        each.close()


def seen(job: DetectionJob, page: DocumentPage, decode_ms: float) -> tuple[int, bool, float, int]:
    """Width, whether the device decoded it, time, and pages."""
    pixels = page.image.pixels
    marked = pixels.shape[2] > 0 and pixels[0, 0].tolist() == [1, 2, 3]
    return pixels.shape[1], marked, decode_ms, page.page_count


def results(decoders: Decoders[Any], batch: Sequence[Payload]) -> list[Any]:
    return [image.result(timeout=20) for image in decoders.begin(batch).result(timeout=20)]


def widths(found: Sequence[Any]) -> list[tuple[int, bool]]:
    return [each[:2] for each in found]


def test_plain_files_go_to_the_device_together_and_the_rest_to_the_cpu(decoders: Made) -> None:
    device = Device()
    batch = [
        JOB.payload(encoded(50)),
        JOB.payload(encoded(51, "png")),
        JOB.payload(encoded(52, mode="CMYK", colour=(0, 0, 0, 90))),
        JOB.payload(encoded(53, progressive=True)),
        JOB._replace(raw=RawPixels(40, 54, "gray")).payload(bytes([120]) * (54 * 40)),
        JOB.payload(encoded(55)),
    ]
    found = results(decoders(device), batch)
    assert widths(found) == [(50, True), (51, False), (52, False), (53, False), (54, False), (55, True)]
    assert device.together == [2]
    assert all(ms > 0 for _, _, ms, _ in found)


def test_what_the_device_cannot_the_cpu_does(decoders: Made) -> None:
    found = results(decoders(Device(50)), [JOB.payload(encoded(width)) for width in (50, 51)])
    assert widths(found) == [(50, False), (51, True)]


def test_without_a_device_all_is_the_cpus(decoders: Made) -> None:
    found = results(decoders(None), [JOB.payload(encoded(width)) for width in (50, 51)])
    assert widths(found) == [(50, False), (51, False)]


def test_pages_are_the_cpus(decoders: Made) -> None:
    device = Device()
    page = JOB._replace(page=0)
    found = results(decoders(device), [page.payload(encoded(50)), page.payload(pdf_of(["a line"]))])
    assert [(marked, pages) for _, marked, _, pages in found] == [(False, 1), (False, 1)]
    assert device.together == [0]


@pytest.mark.parametrize("damaged", [b"no image", encoded(50)[:300], encoded(50)[:-40], b""])
def test_what_is_wrong_with_a_file_is_said_by_the_cpu(decoders: Made, damaged: bytes) -> None:
    batch = [JOB.payload(data) for data in (encoded(50), damaged, encoded(51))]
    first, fault, last = results(decoders(Device()), batch)
    assert widths([first, last]) == [(50, True), (51, True)]
    (alone,) = results(decoders(None), [JOB.payload(damaged)])
    assert isinstance(fault, InvalidImage)
    assert str(fault) == str(alone)


def test_a_fault_in_the_devices_thread_is_the_batchs(decoders: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(device, "decode", lambda _: [])
    with pytest.raises(ValueError, match="zip"):
        decoders(device).begin([JOB.payload(encoded(50))]).result(timeout=20)


def test_the_cpu_may_be_chosen() -> None:
    assert open_device_decoder("cpu", "cuda:0") == (None, "configured")


def test_a_device_that_decodes_nothing_leaves_it_to_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    # There is no such device, and most often no torch.
    decoder, reason = open_device_decoder("auto", "cuda:99")
    assert decoder is None
    assert reason.startswith("cuda:99 decodes no JPEG: ")
    assert f"{reason}, so the CPU decodes" in caplog.text
    with pytest.raises(StartupError, match=r"^detection\.decode: cuda:99 decodes no JPEG: .*; use auto or cpu$"):
        open_device_decoder("gpu", "cuda:99")
