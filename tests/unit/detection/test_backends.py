"""Backends on tiny models of the real architectures, against what torch got from the same weights (models/make.py)."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.backends.base import resolve_backend
from sluiceway_runtime.errors import StartupError

MODELS = Path(__file__).parent / "models"
NAMES = ["yolo11-pico", "yolo26-pico", "yolo26-pico-nms-free"]
SHAPE = (96, 64)


def spec(name: str, **options: object) -> BackendSpec:
    values = {"device": "cpu", "threads": 1, "precision": "f32"} | options
    return BackendSpec(weights=MODELS / f"{name}.onnx", **values)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("name", NAMES)
def test_raw_outputs_equal_those_of_torch(name: str, backend: str) -> None:
    expected = np.load(MODELS / f"{name}.npz")
    model = open_backend(backend, spec(name, shapes=(SHAPE,)))
    (output,) = model.infer([expected["image"]])
    # The weights are random: without this, an output that ignores the picture would pass.
    assert expected["output"].std(axis=1).min() > 0.1
    np.testing.assert_allclose(output, expected["output"], rtol=1e-3, atol=1e-3)
    assert model.card.end_to_end == ("nms-free" in name)
    assert model.precision == "f32"


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_images_of_a_batch_do_not_touch_each_other(backend: str) -> None:
    expected = np.load(MODELS / "yolo11-pico.npz")
    model = open_backend(backend, spec("yolo11-pico", shapes=(SHAPE,)))
    blank = np.zeros((*SHAPE, 3), np.uint8)
    outputs = model.infer([expected["image"], blank, expected["image"]])
    np.testing.assert_allclose(outputs[0], expected["output"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(outputs[0], outputs[2])
    assert np.abs(outputs[0] - outputs[1]).max() > 1


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_dynamic_model_takes_every_listed_shape(backend: str) -> None:
    model = open_backend(backend, spec("yolo26-pico", image_size_px=128))
    assert model.inputs.shapes == ((128, 128), (96, 128), (128, 96))
    for height, width in model.inputs.shapes:
        (output,) = model.infer([np.zeros((height, width, 3), np.uint8)])
        assert output.shape == (7, height * width * 21 // 1024)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_fixed_model_keeps_its_shape(backend: str) -> None:
    assert open_backend(backend, spec("yolo26-pico-nms-free")).inputs.shapes == (SHAPE,)
    assert open_backend(backend, spec("yolo26-pico-nms-free", image_size_px=96)).inputs.shapes == (SHAPE,)
    for options in ({"image_size_px": 64}, {"shapes": ((64, 64),)}):
        with pytest.raises(StartupError, match="exported for 96x64 alone"):
            open_backend(backend, spec("yolo26-pico-nms-free", **options))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_model_with_two_outputs_gives_both(backend: str) -> None:
    model = open_backend(backend, spec("yolo26-pico-segment", shapes=()))
    assert (model.card.head.task, model.card.head.extra) == ("segment", 32)
    for images in ([np.zeros((*SHAPE, 3), np.uint8)], [np.full((*SHAPE, 3), level, np.uint8) for level in (0, 200)]):
        outputs = model.infer(images)
        assert [tuple(part.shape[0] for part in output) for output in outputs] == [(outputs[0][0].shape[0], 32)] * len(
            images
        )
    assert not np.array_equal(outputs[0][1], outputs[1][1])


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_broken_files_are_refused(backend: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(StartupError, match=r"broken\.onnx cannot be"):
        open_backend(backend, BackendSpec(broken, "cpu", 1, "f32"))
    with pytest.raises(StartupError, match="needs multiples of 32"):
        open_backend(backend, spec("yolo11-pico", shapes=((100, 64),)))


def test_precisions_that_are_not_there_are_refused() -> None:
    with pytest.raises(StartupError, match="int8 needs quantised weights"):
        open_backend("openvino", spec("yolo11-pico", precision="int8", shapes=(SHAPE,)))
    with pytest.raises(StartupError, match="onnx computes in f32"):
        open_backend("onnx", spec("yolo11-pico", precision="bf16", shapes=(SHAPE,)))


FREED_IN_ORDER = f"""
import gc, os, signal
from pathlib import Path
from sluiceway_detection.backends import BackendSpec, open_backend
spec = BackendSpec(Path({str(MODELS / "yolo11-pico.onnx")!r}), "cpu", 1, "f32", shapes=({SHAPE},))
first, second = open_backend("openvino", spec), open_backend("openvino", spec)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("options", [[], ["-X", "faulthandler"]])
def test_an_interrupt_after_models_were_freed_is_an_interrupt(options: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, *options, "-c", FREED_IN_ORDER], capture_output=True, timeout=60, check=False
    )
    assert b"KeyboardInterrupt" in ended.stderr
    assert ended.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("wanted", "file", "device", "chosen"),
    [
        ("auto", "m.onnx", "cpu", "openvino"),
        ("auto", "m.onnx", "cuda:0", "torch"),
        ("auto", "m.pt", "cpu", "torch"),
        ("onnx", "m.onnx", "cpu", "onnx"),
        ("onnx", "m.onnx", "cuda:0", "onnx"),
    ],
)
def test_the_backend_follows_weights_and_device(
    monkeypatch: pytest.MonkeyPatch, wanted: str, file: str, device: str, chosen: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert resolve_backend(wanted, Path(file), device) == chosen


@pytest.mark.parametrize(
    ("wanted", "file", "device", "message"),
    [
        ("openvino", "m.pt", "cpu", r"sluiceway_detection\.export m\.pt m\.onnx"),
        ("onnx", "m.pt", "cpu", "reads ONNX"),
        ("torch", "m.onnx", "cpu", r"torch needs torch: .*pip install .*\[gpu\]'$"),
        ("torch", "m.pt", "cpu", r"torch needs torch: .*pip install .*\[export\]'$"),
        ("openvino", "m.onnx", "cuda:0", "computes on the CPU here"),
    ],
)
def test_combinations_that_do_not_work_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, wanted: str, file: str, device: str, message: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartupError, match=message):
        resolve_backend(wanted, Path(file), device)
