"""How batches pass through a worker on a GPU: with a device made of numpy that is told when to be ready."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detection_answers import detections_of
from pdf_files import pdf_of
from PIL import Image
from sluiceway_detection.crops import CropPlan
from sluiceway_detection.db import MapReading
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionAnswer, DetectionJob, RawPixels
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.device_handler import DeviceHandler, build
from sluiceway_detection.worker.handler import WorkerSettings
from sluiceway_detection.yolo.postprocess import select_classic, select_places
from sluiceway_runtime.errors import InvalidImage, InvalidOption, StartupError
from sluiceway_runtime.images.plain_jpeg import PlainJpeg
from sluiceway_runtime.pool import Payload, Placement

PLACEMENT = Placement(0, "cuda:0", None, 4)
WIDE, TALL = (64, 96), (96, 64)
CARD = ModelCard(("thing", "other"), 32, False, (96, 96), False)


class Device:
    """Finds in each image one box, whose confidence is the mean of the picture."""

    name, precision, precision_reason, card = "torch", "f16", "because", CARD
    inputs = Inputs((WIDE, TALL))

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fault_on: int | None = None

    def start(self, images_bgr: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        shapes = {image.shape for image in images_bgr}
        assert len(shapes) == 1, "a batch has one shape"
        names = ",".join(str(int(image[48, 48].mean())) for image in images_bgr)
        self.events.append(f"start {names}")
        if self.fault_on is not None and str(self.fault_on) in names.split(","):
            raise RuntimeError("the device is on fire")
        height, width, _ = images_bgr[0].shape

        def finish() -> list[np.ndarray]:
            self.events.append(f"wait {names}")
            return [
                np.array([[width / 2, height / 2, 20, 10, image[48, 48].mean() / 255, 1]], np.float32).T
                for image in images_bgr
            ]

        return finish


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def handler(device: Device) -> Iterator[DeviceHandler]:
    made = build(WorkerSettings(weights="m.onnx", max_crop_bytes=10_000).mapping())
    facts = made.open(device, PLACEMENT)
    assert (facts.backend, facts.precision, facts.precision_reason) == ("torch", "f16", "because")
    assert (facts.image_sizes, facts.shapes, facts.device, facts.decode) == ((96,), (WIDE, TALL), "cuda:0", "cpu")
    yield made
    made.close()


def picture(grey: int, shape: tuple[int, int] = WIDE) -> bytes:
    return cv2.imencode(".png", np.full((*shape, 3), grey, np.uint8))[1].tobytes()


def job(*plans: CropPlan) -> DetectionJob:
    return DetectionJob(Selection(0.1), None, plans)


def confidences(results: Sequence[Any]) -> list[int]:
    return [round(255 * float(detections_of(result.meta).confidences[0])) for result in results]


def decoded(handler: DeviceHandler) -> None:
    for batch in handler._begun:
        for image in batch.images:
            image.result(timeout=10)


def test_answers_come_in_order(handler: DeviceHandler) -> None:
    results = handler.run([job().payload(picture(grey)) for grey in (100, 200, 150)])
    assert confidences(results) == [100, 200, 150]
    (found,) = [result.meta for result in results[:1]]
    assert isinstance(found, DetectionAnswer)
    assert (found.height_px, found.width_px) == WIDE
    assert found.decode_ms > 0
    np.testing.assert_allclose(detections_of(found).boxes_xyxy_px, [[38, 27, 58, 37]])
    assert detections_of(found).class_ids.tolist() == [1]


def test_pixels_go_to_the_device_beside_files(handler: DeviceHandler) -> None:
    raw = job()._replace(raw=RawPixels(*WIDE, "gray")).payload(bytes([120]) * (64 * 96))
    assert confidences(handler.run([raw, job().payload(picture(90))])) == [120, 90]


def test_images_of_one_shape_go_to_the_device_together(handler: DeviceHandler, device: Device) -> None:
    shapes = {100: WIDE, 101: TALL, 102: WIDE, 103: TALL}
    results = handler.run([job().payload(picture(grey, shape)) for grey, shape in shapes.items()])
    assert confidences(results) == [100, 101, 102, 103]
    assert device.events == ["start 100,102", "start 101,103", "wait 100,102", "wait 101,103"]


def test_the_next_batch_is_with_the_device_before_the_one_before_is_waited_for(
    handler: DeviceHandler, device: Device
) -> None:
    first = handler.launch([job().payload(picture(100))])
    second = handler.launch([job().payload(picture(101))])
    decoded(handler)
    assert confidences(first()) == [100]
    assert device.events == ["start 100", "start 101", "wait 100"]
    third = handler.launch([job().payload(picture(102))])
    assert confidences(second()) == [101]
    assert confidences(third()) == [102]


def test_what_is_decoded_goes_to_the_device_when_the_next_batch_comes(handler: DeviceHandler, device: Device) -> None:
    first = handler.launch([job().payload(picture(100))])
    decoded(handler)
    second = handler.launch([job().payload(picture(101))])
    assert device.events[0] == "start 100"
    assert confidences(first()) + confidences(second()) == [100, 101]


def test_a_file_that_is_no_image_fails_alone(handler: DeviceHandler, device: Device) -> None:
    results = handler.run([job().payload(data) for data in (picture(100), b"no image", picture(101)[:-20])])
    assert confidences(results[:1]) == [100]
    assert [type(result) for result in results[1:]] == [InvalidImage, InvalidImage]
    assert device.events == ["start 100", "wait 100"]
    assert [type(result) for result in handler.run([job().payload(b"no image")])] == [InvalidImage]


class Decoding:
    """A device that decodes everything but what is as dark as told; broken, it fails as nothing should."""

    def __init__(self) -> None:
        self.files = 0
        self.broken = False

    def decode(self, files: Sequence[PlainJpeg]) -> Iterator[np.ndarray | None]:
        if self.broken:
            raise RuntimeError("out of order")
        self.files += len(files)
        for jpeg in files:
            pixels = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
            yield None if pixels.max() < 60 else pixels


def photograph(grey: int) -> bytes:
    return cv2.imencode(".jpg", np.full((*WIDE, 3), grey, np.uint8))[1].tobytes()


@pytest.fixture
def decoding(device: Device) -> Iterator[tuple[DeviceHandler, Decoding]]:
    made, decoder = build(WorkerSettings(weights="m.onnx").mapping()), Decoding()
    assert made.open(device, PLACEMENT, decoder).decode == "gpu"
    yield made, decoder
    made.close()


def test_answers_are_the_same_where_the_device_decodes(
    handler: DeviceHandler, decoding: tuple[DeviceHandler, Decoding]
) -> None:
    greys = (100, 50, 200)
    batch = [job().payload(photograph(grey)) for grey in greys] + [job().payload(b"no image")]
    batch.append(job().payload(picture(150)))
    here, there = handler.run(batch), decoding[0].run(batch)
    assert decoding[1].files == 3
    assert confidences([*there[:3], there[4]]) == [*greys, 150]
    assert str(there[3]) == str(here[3])
    for one, other in zip(here, there, strict=True):
        if isinstance(one, Payload) and isinstance(other, Payload):
            assert other.meta.decode_ms > 0
            assert other.meta._replace(decode_ms=0) == one.meta._replace(decode_ms=0)
            assert other.buffers == one.buffers


def test_a_decoder_out_of_order_fails_its_batch_alone(decoding: tuple[DeviceHandler, Decoding]) -> None:
    handler, decoder = decoding
    decoder.broken = True
    first = handler.launch([job().payload(photograph(100))])
    with pytest.raises(RuntimeError, match="out of order"):
        first()
    decoder.broken = False
    assert confidences(handler.run([job().payload(photograph(120))])) == [120]


def test_crops_over_the_limit_fail_alone(handler: DeviceHandler) -> None:
    large, small = CropPlan("text", 64, 640, rule="stretch"), CropPlan("text", 16, 64)
    results = handler.run([job(plan).payload(picture(100)) for plan in (small, large)])
    assert isinstance(results[0], Payload)
    assert len(results[0].buffers) == 1
    assert isinstance(results[1], InvalidOption)


def test_a_fault_of_the_device_fails_its_batch_alone(handler: DeviceHandler, device: Device) -> None:
    device.fault_on = 101
    launched = [handler.launch([job().payload(picture(grey))]) for grey in (100, 101, 102)]
    decoded(handler)
    assert confidences(launched[0]()) == [100]
    with pytest.raises(RuntimeError, match="on fire"):
        launched[1]()
    assert confidences(launched[2]()) == [102]


def test_a_checkpoint_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"never read")
    with pytest.raises(StartupError, match="allow_pickle"):
        build(WorkerSettings(weights=str(checkpoint)).mapping()).setup(PLACEMENT)


@pytest.mark.parametrize("classes", [1, 3])
def test_places_with_their_best_class_give_the_same_regions_as_all_classes(classes: int) -> None:
    random = np.random.default_rng(classes)
    boxes = random.uniform(5, 90, (4, 500)).astype(np.float32)
    scores = random.uniform(0, 1, (classes, 500)).astype(np.float32)
    scores[0, :50], boxes[:, 50:60], scores[:, 60:70] = np.nan, np.inf, np.nan
    best = np.nan_to_num(scores, nan=-1)
    places = np.concatenate((boxes, best.max(axis=0)[None], best.argmax(axis=0)[None]))
    letterbox = Letterbox.fit((50, 70), (96, 96))
    for selection in (Selection(0.3, 0.5), Selection(0.8, 0.5, class_ids=[classes - 1]), Selection(0.1, 0.9, 7)):
        expected = select_classic(np.concatenate((boxes, scores)), letterbox, selection)
        found = select_places(places, letterbox, selection)
        assert len(expected) > 0
        for one, other in zip(
            (found.boxes_xyxy_px, found.class_ids, found.confidences),
            (expected.boxes_xyxy_px, expected.class_ids, expected.confidences),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


class DarkDevice(Device):
    """Has a DB model that sees what is dark."""

    card = ModelCard(("text",), 32, False, (96, 96), False, map_reading=MapReading(0.5, 1.4))
    inputs = Inputs((WIDE, TALL), enlarges=False)

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.text = np.uint8(255) if dtype == "uint8" else np.float32(1)

    def start(self, images_bgr: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        assert len({image.shape for image in images_bgr}) == 1, "a batch has one shape"
        self.events.append(f"start {len(images_bgr)}")
        return lambda: [(image.max(axis=2) < 125)[None] * self.text for image in images_bgr]


@pytest.fixture(params=["float32", "uint8"])
def dark(request: pytest.FixtureRequest) -> Iterator[tuple[DeviceHandler, DarkDevice]]:
    device = DarkDevice(request.param)
    made = build(WorkerSettings(weights="m.onnx").mapping())
    assert made.open(device, PLACEMENT).scales
    yield made, device
    made.close()


def small_print() -> np.ndarray:
    """Four lines that are a few pixels high as they are shown first."""
    image = np.full((256, 384, 3), 240, np.uint8)
    for row in range(16):
        image[64 + row : 192 + row : 32, 32:352] = 10
    return image


def test_images_are_looked_at_once_more_where_that_is_of_use(dark: tuple[DeviceHandler, DarkDevice]) -> None:
    handler, device = dark
    small = small_print()
    pages = [cv2.imencode(".png", image)[1].tobytes() for image in (small, np.full_like(small, 240), small)]
    asked = DetectionJob(Selection(0.3), scale="auto")
    results = handler.run([asked.payload(page) for page in pages])
    found = [detections_of(result.meta) for result in results if isinstance(result, Payload)]
    # Three images together, and then the parts of two.
    first, second = device.events
    assert first == "start 3"
    assert int(second.removeprefix("start ")) >= 4
    assert [len(lines) for lines in found] == [4, 0, 4]
    (fast,) = handler.run([asked._replace(scale="fast").payload(pages[0])])
    assert isinstance(fast, Payload)
    assert fast.meta.too_small
    assert len(device.events) == 3


def test_pages_are_looked_at_like_images_and_those_that_say_their_text_are_not(
    dark: tuple[DeviceHandler, DarkDevice],
) -> None:
    handler, device = dark
    small = small_print()
    picture = Image.fromarray(small)
    scan = io.BytesIO()
    Image.new("RGB", picture.size, (240, 240, 240)).save(scan, "tiff", save_all=True, append_images=[picture])
    asked = DetectionJob(Selection(0.3), scale="auto")
    said = asked._replace(page=0, prefers_text=True).payload(pdf_of(["first line\nsecond line"]))
    page = asked._replace(page=1).payload(scan.getvalue())
    image = asked.payload(cv2.imencode(".png", small)[1].tobytes())
    told, found, alone = (result.meta for result in handler.run([said, page, image]) if isinstance(result, Payload))
    assert told.texts == ("first line", "second line")
    assert (found.page_count, len(detections_of(found).confidences)) == (2, 4)
    assert found._replace(page_count=0, decode_ms=0) == alone._replace(decode_ms=0)
    # Page and image together, and then the parts of both.
    first, second = device.events
    assert first == "start 2"
    assert int(second.removeprefix("start ")) >= 4
