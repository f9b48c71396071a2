"""What a worker does with a batch."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from detection_answers import detections_of
from sluiceway_detection.crops import CropPlan
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionAnswer, DetectionJob, RawPixels
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker import detector
from sluiceway_detection.worker.handler import DetectionFacts, DetectionHandler, WorkerSettings, build
from sluiceway_detection.yolo.postprocess import select_classic
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption, StartupError
from sluiceway_runtime.pool import Payload, Placement

MODELS = Path(__file__).parent / "models"
PLACEMENT = Placement(0, "cpu", None, 1)
SETTINGS = WorkerSettings(
    weights=str(MODELS / "yolo11-pico.onnx"), precision="f32", shapes=((96, 64), (64, 96)), max_crop_bytes=200_000
)
EVERYTHING = Selection(confidence=0.4, iou=0.5)


@pytest.fixture(scope="module")
def handler() -> DetectionHandler:
    made = build(SETTINGS.mapping())
    facts = made.setup(PLACEMENT)["detection"]
    assert facts == DetectionFacts("openvino", "f32", "cpu", ("0", "1", "2"), (96,), ((96, 64), (64, 96)), scales=True)
    assert pickle.loads(pickle.dumps(facts)) == facts
    return made


def image() -> np.ndarray:
    return np.load(MODELS / "yolo11-pico.npz")["image"]


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def answer(result: object) -> DetectionAnswer:
    assert isinstance(result, Payload)
    assert isinstance(result.meta, DetectionAnswer)
    return result.meta


def test_bytes_in_regions_out(handler: DetectionHandler) -> None:
    job = DetectionJob(EVERYTHING, None, (CropPlan("text", 16, 64),))
    (result,) = handler.run([job.payload(png(image()))])
    found = answer(result)
    assert (found.height_px, found.width_px) == (96, 64)
    assert found.decode_ms > 0
    expected = select_classic(
        np.load(MODELS / "yolo11-pico.npz")["output"], Letterbox.fit((96, 64), (96, 64)), EVERYTHING
    )
    assert len(expected) >= 3
    np.testing.assert_allclose(detections_of(found).boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.01)
    np.testing.assert_allclose(detections_of(found).confidences, expected.confidences, atol=1e-3)
    assert detections_of(found).class_ids.tolist() == expected.class_ids.tolist()
    assert len(result.buffers) == len(found.crops) > 0
    for crop, pixels in zip(found.crops, result.buffers, strict=True):
        assert memoryview(pixels).nbytes == crop.height_px * crop.width_px * 3
        assert crop.height_px == 16
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_bad_item_fails_alone(handler: DetectionHandler) -> None:
    job = DetectionJob(EVERYTHING)
    greedy = DetectionJob(EVERYTHING, None, (CropPlan("big", 200, 400, rule="stretch"),))
    good = png(image())
    results = handler.run(
        [
            job.payload(b"no image"),
            job.payload(good),
            job.payload(good[:-20]),
            greedy.payload(good),
            job.payload(png(np.zeros((20, 400, 3), np.uint8))),
        ]
    )
    assert [type(result) for result in results] == [InvalidImage, Payload, InvalidImage, InvalidOption, Payload]
    assert answer(results[4]).width_px == 400


def test_limits_reach_the_worker() -> None:
    small = build(WorkerSettings(**(SETTINGS.mapping() | {"max_image_pixels": 100})).mapping())
    small.setup(PLACEMENT)
    (result,) = small.run([DetectionJob(EVERYTHING).payload(png(image()))])
    assert isinstance(result, ImageTooLarge)


def test_images_of_different_shapes_share_a_batch(handler: DetectionHandler) -> None:
    job = DetectionJob(EVERYTHING)
    tall, wide = png(image()), png(np.ascontiguousarray(np.rot90(image())))
    together = handler.run([job.payload(data) for data in (tall, wide, tall)])
    alone = [handler.run([job.payload(data)])[0] for data in (tall, wide, tall)]
    for one, other in zip(together, alone, strict=True):
        assert answer(one).boxes_xyxy_px == answer(other).boxes_xyxy_px


def test_memoryviews_are_taken(handler: DetectionHandler) -> None:
    (result,) = handler.run([Payload(DetectionJob(EVERYTHING), (memoryview(png(image())).toreadonly(),))])
    assert len(detections_of(answer(result))) > 0


def test_pixels_are_detected_in_like_the_file_that_holds_them(handler: DetectionHandler) -> None:
    job, pixels = DetectionJob(EVERYTHING), image()
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    raw = {"bgr": pixels, "rgb": np.ascontiguousarray(pixels[:, :, ::-1]), "gray": gray}
    (file,) = handler.run([job.payload(png(pixels))])
    (gray_file,) = handler.run([job.payload(png(gray))])
    results = handler.run(
        [job._replace(raw=RawPixels(96, 64, name)).payload(memoryview(its.tobytes())) for name, its in raw.items()]
    )
    expected = [answer(file), answer(file), answer(gray_file)]
    assert answer(file).boxes_xyxy_px != answer(gray_file).boxes_xyxy_px
    for result, its in zip(results, expected, strict=True):
        assert answer(result)._replace(decode_ms=0) == its._replace(decode_ms=0)


def test_crops_of_their_own_size_say_where_they_lie(handler: DetectionHandler) -> None:
    job = DetectionJob(EVERYTHING, None, (CropPlan("region", 0, 1000, rule="fit_longest"),))
    (result,) = handler.run([job.payload(png(image()))])
    found = answer(result)
    assert len(found.crops) > 0
    for crop, pixels in zip(found.crops, result.buffers, strict=True):
        assert crop.to_image is not None
        x0, y0 = int(crop.to_image[2]), int(crop.to_image[5])
        assert crop.to_image == (1, 0, x0, 0, 1, y0, 0, 0, 1)
        cut = image()[y0 : y0 + crop.height_px, x0 : x0 + crop.width_px]
        assert bytes(pixels) == cut.tobytes()
    assert pickle.loads(pickle.dumps(found)) == found


class Painter:
    """A user's detector that draws on what it is given."""

    classes = ("x",)

    def __call__(self, batch: list[np.ndarray]) -> list[list[object]]:
        for picture in batch:
            assert picture.flags.c_contiguous
            picture[:] = 0
        return [[] for _ in batch]


@pytest.mark.parametrize("name", ["bgr", "rgb", "gray"])
def test_a_users_detector_may_draw_on_pixels(name: str) -> None:
    made = build(SETTINGS.mapping())
    made._engine = detector.UserDetector(Painter())  # type: ignore[arg-type]
    data = bytes([9]) * (2 * 3 * (1 if name == "gray" else 3))
    (result,) = made.run([DetectionJob(EVERYTHING, raw=RawPixels(2, 3, name)).payload(data)])  # type: ignore[arg-type]
    assert (answer(result).height_px, answer(result).width_px) == (2, 3)
    assert set(data) == {9}


class Nonsense:
    """A backend whose model has gone mad."""

    name, precision, inputs = "openvino", "f32", Inputs(((96, 64),))

    def __init__(self, card: object) -> None:
        self.card = card

    def infer(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return [np.full((7, 126), np.nan, np.float32) for _ in images]


def test_nan_from_a_model_gives_no_regions(handler: DetectionHandler) -> None:
    engine = detector.ModelDetector(Nonsense(handler._engine._backend.card))
    (found,) = engine.detect([image()], [DetectionJob(EVERYTHING)])
    assert len(found) == 0


def test_a_checkpoint_is_refused_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"never read")
    with pytest.raises(StartupError, match=r"needs torch|allow_pickle"):
        build(WorkerSettings(weights=str(checkpoint)).mapping()).setup(PLACEMENT)


def test_a_users_detector_runs_in_the_handler() -> None:
    made = build(WorkerSettings(detector="examples.detector:BlobDetector").mapping())
    facts = made.setup(PLACEMENT)["detection"]
    assert (facts.backend, facts.classes, facts.image_sizes) == ("user", ("blob",), ())
    page = np.full((60, 90, 3), 255, np.uint8)
    page[20:40, 30:60] = 0
    (result,) = made.run([DetectionJob(EVERYTHING).payload(png(page))])
    assert detections_of(answer(result)).boxes_xyxy_px.tolist() == [[30, 20, 60, 40]]
