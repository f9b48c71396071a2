"""Quantisation to int8, and the comparison that it has to pass."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from db_graphs import dark_is_text
from sluiceway_detection import calibration
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.backends.precision import choose_precision, is_quantised
from sluiceway_detection.calibration import calibrate, compare, read_images
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.types import Detections
from sluiceway_runtime.errors import StartupError

# Of onnxruntime's quantisation, which uses what onnx has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FOLDER = Path(__file__).parent
PICO = FOLDER / "models" / "yolo11-pico.onnx"
SHAPES = ((96, 64),)
CARD = ModelCard(("word",), 32, False, (64, 64), True)


def detections(boxes: list[list[float]], confidences: list[float], classes: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int32), np.array(confidences, np.float32)
    )


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    noise = np.random.default_rng(3)
    return [np.load(FOLDER / "models" / "yolo11-pico.npz")["image"], noise.integers(0, 255, (90, 60, 3), np.uint8)]


def test_a_quantised_model_is_written_and_served(images: list[np.ndarray], tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    # Random weights bear no quantisation; that it is right with real ones is tested with those.
    found = calibrate(PICO, target, images, least_agreement=0)
    assert found.boxes > 3
    assert sorted(tmp_path.iterdir()) == [target]
    assert is_quantised(target)
    assert not is_quantised(PICO)
    operators = {node.op_type for node in onnx.load(target).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= operators
    backend = open_backend("openvino", BackendSpec(target, "cpu", 1, "int8", shapes=SHAPES))
    assert backend.precision == "int8"
    assert backend.card.classes == ("0", "1", "2"), "the metadata came along"
    (output,) = backend.infer([images[0]])
    plain = open_backend("openvino", BackendSpec(PICO, "cpu", 1, "f32", shapes=SHAPES))
    (expected,) = plain.infer([images[0]])
    assert output.shape == expected.shape
    assert np.isfinite(output).all()
    assert 0.001 < np.abs(output[4:] - expected[4:]).mean() < 0.2
    choice = choose_precision(BackendSpec(target, "cpu", 1))
    assert (choice.precision, choice.reason) == ("int8", "the weights are quantised")


def test_what_disagrees_is_not_written(
    images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "int8.onnx"
    target.write_bytes(b"as it was")
    worse = calibration.Agreement(100, 0.94, 0.1, 0.4)
    monkeypatch.setattr(calibration, "compare", lambda *_: worse)
    with pytest.raises(
        StartupError, match=r"94\.0% of 100 boxes stay where they are, 95\.0% must; nothing was written"
    ):
        calibrate(PICO, target, images)
    assert target.read_bytes() == b"as it was"
    assert sorted(tmp_path.iterdir()) == [target]


def test_images_without_a_region_prove_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "compare", lambda *_: calibration.Agreement(0, 0, 0, 0))
    with pytest.raises(StartupError, match="finds nothing in these images"):
        calibrate(PICO, tmp_path / "int8.onnx", [np.zeros((64, 64, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_a_model_agrees_with_itself(images: list[np.ndarray]) -> None:
    plain = open_backend("openvino", BackendSpec(PICO, "cpu", 1, "f32", shapes=SHAPES))
    found = compare(plain, plain, images)
    assert found.boxes > 3
    assert (found.matched, found.confidence_gap, found.confidence_gap_max) == (1, 0, 0)
    assert found.f32_ms > 0


def test_partners_are_of_the_same_class_and_near() -> None:
    sure = detections(
        [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 0, 70, 9]], [0.9, 0.8, 0.7, 0.2], [0, 0, 1, 0]
    )
    other = detections([[0, 0, 10, 10], [24, 20, 34, 30], [40, 40, 50, 50]], [0.6, 0.8, 0.7], [0, 0, 0])
    overlaps, gaps = calibration._partners(sure, other, 0.3)
    assert overlaps == [pytest.approx(1), pytest.approx(60 / 140), 0]
    assert gaps == [pytest.approx(0.3)]
    assert calibration._partners(sure, detections([], [], []), 0.3) == ([0, 0, 0], [])
    assert calibration._partners(detections([], [], []), other, 0.3) == ([], [])


def test_half_precision_weights_become_weights_again(tmp_path: Path) -> None:
    narrow = onnx.numpy_helper.from_array(np.ones((2, 2), np.float16), "narrow")
    cast = onnx.helper.make_node("Cast", ["narrow"], ["wide"], to=onnx.TensorProto.FLOAT)
    product = onnx.helper.make_node("MatMul", ["x", "wide"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([cast, product], "g", ports[:1], ports[1:], [narrow]))
    calibration._widen_weights(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    (weights,) = model.graph.initializer
    assert (weights.name, weights.data_type) == ("wide", onnx.TensorProto.FLOAT)
    onnx.checker.check_model(model)


def test_images_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupError, match="holds no image"):
        read_images(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.jpg").write_bytes((FOLDER / "images" / "coffee.jpg").read_bytes())
    (tmp_path / "a.JPG").write_bytes((FOLDER / "images" / "chelsea.jpg").read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert len(read_images(tmp_path)) == 2
    assert "broken.png is passed over" in caplog.text


def test_maps_are_not_quantised(images: list[np.ndarray], tmp_path: Path) -> None:
    model = dark_is_text(tmp_path / "map.onnx")
    with pytest.raises(StartupError, match=r"map\.onnx is a DB model"):
        calibrate(model, tmp_path / "int8.onnx", images)
    assert not (tmp_path / "int8.onnx").exists()


def test_models_of_other_tasks_are_not_quantised(images: list[np.ndarray], tmp_path: Path) -> None:
    model = Path(__file__).parent / "models" / "yolo26-pico-segment.onnx"
    with pytest.raises(StartupError, match=r"segment\.onnx does not find boxes alone"):
        calibrate(model, tmp_path / "int8.onnx", images)
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("count", [3, 50])
def test_the_images_of_a_folder_are_not_held_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def decode(data: bytes, limits: object) -> np.ndarray:
        nonlocal most
        image = np.full((64, 64, 3), int(data), np.uint8)
        alive.append(weakref.ref(image))
        most = max(most, sum(each() is not None for each in alive))
        return image

    def quantise(source: Path, target: Path, plain: object, images: Iterable[np.ndarray]) -> None:
        used["calibrated"] = [int(image[0, 0, 0]) for image in images]
        target.write_bytes(PICO.read_bytes())

    def judge(plain: object, quantised: object, images: Iterable[np.ndarray]) -> calibration.Agreement:
        used["judged"] = [int(image[0, 0, 0]) for image in images]
        return calibration.Agreement(1, 1, 0, 0)

    used: dict[str, list[int]] = {}
    for number in range(count):
        (tmp_path / f"{number:02}.png").write_text(str(number))
    monkeypatch.setattr(calibration, "decode_image", decode)
    monkeypatch.setattr(calibration, "_quantise", quantise)
    monkeypatch.setattr(calibration, "compare", judge)
    monkeypatch.setattr(calibration, "open_backend", lambda *_: SimpleNamespace(card=CARD))
    images = read_images(tmp_path)
    assert len(images) == count
    calibrate(PICO, tmp_path / "int8.onnx", images)
    every = list(range(count))
    kept = every[::5] if count == 50 else []
    assert used == {"calibrated": [number for number in every if number not in kept], "judged": kept or every}
    assert most <= 2
