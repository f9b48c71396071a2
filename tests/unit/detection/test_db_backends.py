"""DB models on backends: any shape, the same map from all, and what 16 bits may change of it."""

from pathlib import Path

import numpy as np
import pytest
from db_graphs import dark_is_text
from sluiceway_detection.backends import BackendSpec, open_backend, precision
from sluiceway_detection.backends.agreement import answers_differ, maps_differ
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.thresholds import PP_OCR_PIXELS, PixelScale, Thresholds
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_detection.worker.handler import DetectionFacts, WorkerSettings, build
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.pool import Placement

KNOWN = Thresholds(0.4, None, 0.2, 1.4)
ANY = DetectionJob(Selection(0.4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_is_text(tmp_path_factory.mktemp("db") / "dark.onnx")


def picture(height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(height).integers(215, 256, (height, width, 3), np.uint8)
    image[height // 3 : height // 2, width // 8 : width * 7 // 8] = (10, 60, 90)
    return image


def by_hand(image: np.ndarray, pixels: PixelScale = PP_OCR_PIXELS) -> np.ndarray:
    """The map of `dark_is_text`."""
    channels = image[:, :, ::-1] if pixels.rgb else image
    scaled = (channels.astype(np.float64) - pixels.mean) / pixels.std * (0.5, 1, 1.5)
    padded = np.pad(scaled.sum(axis=2), 1)
    height, width = image.shape[:2]
    sums = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return 1 / (1 + np.exp(8 * sums / 27))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("pixels", [PP_OCR_PIXELS, PixelScale((10, 20, 30), (100, 110, 120), rgb=True)])
def test_any_shape_gives_its_map(model: Path, backend: str, pixels: PixelScale) -> None:
    opened = open_backend(backend, BackendSpec(model, "cpu", 1, "f32", known=KNOWN._replace(pixels=pixels)))
    assert opened.inputs.any_shape
    for shape in ((64, 96), (96, 64), (320, 256)):
        (found,) = opened.infer([picture(*shape)])
        assert found.shape == (1, *shape)
        np.testing.assert_allclose(found[0], by_hand(picture(*shape), pixels), atol=1e-3)


def test_a_shape_that_comes_often_is_compiled_and_gives_the_same(model: Path) -> None:
    opened = open_backend("openvino", BackendSpec(model, "cpu", 1, "f32", known=KNOWN))
    opened._own_shapes._make_s = 0.0
    first, second = (opened.infer([picture(64, 96)])[0].copy() for _ in range(2))
    assert opened._own_shapes.shapes[-1] == (64, 96)
    np.testing.assert_allclose(first, second, atol=1e-5)
    two = opened.infer([picture(64, 96), picture(96, 64)])
    np.testing.assert_allclose(two[0], first, atol=1e-5)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_listed_shapes_hold_small_images_as_they_are(model: Path, backend: str) -> None:
    spec = BackendSpec(model, "cpu", 1, "f32", shapes=((128, 128), (64, 128)), known=KNOWN)
    detector = ModelDetector(open_backend(backend, spec))
    assert detector.image_sizes == (128,)
    whole = ModelDetector(open_backend(backend, BackendSpec(model, "cpu", 1, "f32", known=KNOWN)))
    assert whole.image_sizes == (960,)
    image = picture(60, 100)
    (listed,), (as_it_is,) = detector.detect([image], [ANY]), whole.detect([image], [ANY])
    assert len(listed) == len(as_it_is) == 1
    np.testing.assert_allclose(listed.boxes_xyxy_px, as_it_is.boxes_xyxy_px, atol=1)
    assert (listed.scale, as_it_is.scale) == (1, 1)
    (shrunk,) = detector.detect([np.full((256, 200, 3), 250, np.uint8)], [ANY])
    assert shrunk.scale == 0.5
    np.testing.assert_allclose(as_it_is.boxes_xyxy_px, [[6, 14, 93, 36]], atol=2)


def test_the_handler_tells_how_images_are_shown(model: Path) -> None:
    handler = build(WorkerSettings(weights=str(model), precision="f32", known=KNOWN).mapping())
    facts = handler.setup(Placement(0, "cpu", None, 1))["detection"]
    assert facts == DetectionFacts(
        "openvino",
        "f32",
        "cpu",
        ("text",),
        (960,),
        ((960, 736),),
        0.4,
        enlarges=False,
        any_shape=True,
        scales=True,
        scale="auto",
    )
    assert facts.inputs is not None
    assert facts.inputs.shape_of((40, 3000)) == (96, 3040)


def test_bf16_is_held_against_f32(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    backend = open_backend("onnx", BackendSpec(model, "cpu", 1, trial=True, known=KNOWN))
    assert backend.inputs.shapes == ((480, 480),)
    shift = {"f32": 0.0, "bf16": 0.01}

    def infer(images: list[np.ndarray]) -> list[np.ndarray]:
        return [np.full((1, 32, 32), 0.5, np.float32) - shift[tried]]

    def opened(name: str, spec: BackendSpec) -> object:
        nonlocal tried
        tried = str(spec.precision)
        return backend

    tried = ""
    monkeypatch.setattr(backend, "infer", infer)
    monkeypatch.setattr(precision, "open_backend", opened)
    wanted = BackendSpec(model, "cpu", 1, "bf16", known=KNOWN)
    assert precision.choose_precision(wanted).precision == "bf16"
    shift["bf16"] = 0.4
    with pytest.raises(StartupError, match="0% of the pixels of text stay text"):
        precision.choose_precision(wanted)


def card_of(model: Path):
    return open_backend("onnx", BackendSpec(model, "cpu", 1, known=KNOWN)).card


def test_maps_may_differ_by_a_rounding_and_no_more(model: Path) -> None:
    map_ = np.zeros((1, 64, 64), np.float32)
    map_[0, 20:40, 10:50] = 0.9
    assert maps_differ(map_, map_ + np.float32(0.01), 0.2) is None
    wider = map_.copy()
    wider[0, 40:42, 10:50] = 0.3
    assert "of the pixels of text stay text" in str(maps_differ(map_, wider, 0.2))
    assert "the map differs by" in str(maps_differ(map_, map_ * 0.8, 0.2))
    assert "not finite" in str(maps_differ(map_, map_ * np.nan, 0.2))
    assert "instead of" in str(maps_differ(map_, map_[:, :32], 0.2))
    assert maps_differ(map_ * 0, map_ * 0, 0.2) is None
    assert "stay text" in str(answers_differ(map_, wider, card_of(model)))
