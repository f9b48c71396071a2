"""What needs torch and ultralytics: checkpoints, their export, and a live comparison with `YOLO.predict`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sluiceway_detection.backends import Backend, BackendSpec, open_backend
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch and ultralytics warn by themselves

IMAGES = Path(__file__).parents[1] / "unit" / "detection" / "images"
SHAPE = (480, 640)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLO11n of full size: random weights, seeded, its layers normalised to photographs so that it sees something."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    yolo = YOLO("yolo11n.yaml")
    model: Any = yolo.model
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    pictures = [cv2.resize(cv2.imread(str(path)), (320, 320)) for path in sorted(IMAGES.glob("*.jpg"))]
    batch = torch.from_numpy(np.stack(pictures)[:, :, :, ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    model.train()
    with torch.no_grad():
        model(batch)
    model.eval()
    path = tmp_path_factory.mktemp("yolo11") / "random.pt"
    yolo.save(path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "sluiceway_detection.export",
        str(checkpoint),
        str(checkpoint.with_suffix(".onnx")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["random.onnx", "random.pt"]
    return checkpoint.with_suffix(".onnx")


def backend_of(name: str, path: Path, **options: Any) -> Backend:
    values: dict[str, Any] = {"precision": "f32", "shapes": (SHAPE,), "allow_checkpoint": True} | options
    return open_backend(name, BackendSpec(path, "cpu", 2, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["openvino", "onnx", "torch"])
def test_raw_outputs_of_a_random_yolo11_equal_ultralytics(checkpoint: Path, exported: Path, backend: str) -> None:
    import torch
    from ultralytics import YOLO

    image = cv2.resize(cv2.imread(str(IMAGES / "coffee.jpg")), SHAPE[::-1])
    pixels = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    reference: Any = YOLO(str(checkpoint)).model
    with torch.inference_mode():
        expected = reference.fuse().eval()(pixels)[0][0].numpy()
    model = backend_of(backend, checkpoint if backend == "torch" else exported)
    (output,) = model.infer([image])
    assert np.ptp(expected[4:], axis=1).max() > 0.05
    np.testing.assert_allclose(output[4:], expected[4:], atol=1e-3)
    # Coordinates as shares of the input's longer side: its coarsest cells multiply what rounding is in the head by 32.
    np.testing.assert_allclose(output[:4] / max(SHAPE), expected[:4] / max(SHAPE), atol=1e-4)
    assert len(model.card.classes) == 80
    assert model.card.classes == tuple(reference.names.values())


@pytest.mark.parametrize("backend", ["openvino", "torch"])
@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut"])
def test_boxes_equal_predict(checkpoint: Path, exported: Path, backend: str, name: str) -> None:
    from ultralytics import YOLO

    path = IMAGES / f"{name}.jpg"
    options = {"imgsz": SHAPE, "rect": False, "conf": 1e-4, "iou": 0.7, "max_det": 1000, "verbose": False}
    (expected,) = YOLO(str(checkpoint)).predict(path, device="cpu", **options)
    boxes, confidences = expected.boxes.xyxy.numpy(), expected.boxes.conf.numpy()
    assert len(boxes) > 30
    detector = ModelDetector(backend_of(backend, checkpoint if backend == "torch" else exported))
    image = decode_image(path.read_bytes(), ImageLimits())
    (found,) = detector.detect([image], [DetectionJob(Selection(1e-4, 0.7, 1000))])
    unmatched = 0
    for row in range(30):
        left, top, right, bottom = boxes[row]
        if right <= left or bottom <= top:
            continue  # outside the image: ultralytics keeps it without area, here it is no region
        same = found.class_ids == int(expected.boxes.cls[row])
        near = np.abs(found.boxes_xyxy_px - boxes[row]).max(axis=1) < 0.2
        close = np.abs(found.confidences - confidences[row]) < 1e-3
        unmatched += not (same & near & close).any()
    assert unmatched == 0


def test_exports_are_reproducible(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    from sluiceway_detection.export import export_checkpoint

    export_checkpoint(checkpoint, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


def test_a_checkpoint_is_loaded_only_when_it_is_allowed(checkpoint: Path) -> None:
    with pytest.raises(StartupError, match=r'allow_pickle = \["random.pt"\]'):
        backend_of("torch", checkpoint, allow_checkpoint=False)


def test_threads_stay_capped(checkpoint: Path) -> None:
    import torch

    backend_of("torch", checkpoint)
    assert torch.get_num_threads() == 2


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    from sluiceway_detection.export import export_checkpoint, main
    from ultralytics import YOLO

    YOLO("yolo11n-seg.yaml").save(tmp_path / "seg.pt")
    with pytest.raises(StartupError, match="'segment' is not served; tasks that are: detect"):
        backend_of("torch", tmp_path / "seg.pt")
    with pytest.raises(StartupError, match="cannot be loaded"):
        export_checkpoint(tmp_path / "missing.pt", tmp_path / "missing.onnx")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert main([str(tmp_path / "junk.pt"), str(tmp_path / "junk.onnx")]) == 1
    assert not (tmp_path / "junk.onnx").exists()
