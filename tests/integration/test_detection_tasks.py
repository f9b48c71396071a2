"""Oriented boxes, outlines, keypoints and DETR heads: regions equal those of ultralytics on its own random models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.crops.cutting import quad_of
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_detection.worker.looks import looks_of
from sluiceway_runtime.errors import StartupError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch and ultralytics warn by themselves

IMAGES = Path(__file__).parents[1] / "unit" / "detection" / "images"
SHAPE = (192, 256)
CONFIDENCE = 0.02
# Turned boxes are drawn so many times as large as they are.
FINE = 4
BLUR_PX = 8
ARCHITECTURES = {
    "yolo11-obb": "11/yolo11-obb",
    "yolo26-obb": "26/yolo26-obb",
    "yolo11-seg": "11/yolo11-seg",
    "yolo26-seg": "26/yolo26-seg",
    "yolo11-pose": "11/yolo11-pose",
    "yolo26-pose": "26/yolo26-pose",
    "rtdetr": "rt-detr/rtdetr-resnet50",
}


def photographs() -> Any:
    import torch

    pictures = [cv2.resize(cv2.imread(str(path)), SHAPE[::-1]) for path in sorted(IMAGES.glob("*.jpg"))]
    return torch.from_numpy(np.stack(pictures)[:, :, :, ::-1].copy()).permute(0, 3, 1, 2).float() / 255


def enliven(model: Any, batch: Any) -> None:
    """Normalise every layer to photographs, and let the heads swing: a fresh network says the same everywhere."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    # Masks of random weights are noise, of which no outline can be drawn. What makes them is blurred instead.
    for module in getattr(model.model[-1], "proto", torch.nn.Module()).modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            weight = module.weight.data
            module.weight.data = weight.mean((2, 3), keepdim=True).expand_as(weight).clone()
    model.train()
    with torch.no_grad():
        model.predict(batch)
    model.eval()
    for name, parameter in model.model[-1].named_parameters():
        if "cv3" in name and name.endswith(".2.weight"):
            parameter.data *= 4
        elif "cv3" in name and name.endswith(".2.bias"):
            parameter.data /= 4


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of ultralytics, a sixteenth as wide as its smallest, and the ONNX file that it exports."""
    import torch
    import yaml
    from ultralytics import YOLO
    from ultralytics.utils import ROOT

    torch.manual_seed(3)
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    config = yaml.safe_load((ROOT / "cfg" / "models" / f"{ARCHITECTURES[name]}.yaml").read_text())
    config["nc"] = 3
    if name == "rtdetr":
        from ultralytics import RTDETR

        (folder / "rtdetr-l.yaml").write_text((ROOT / "cfg" / "models" / "rt-detr" / "rtdetr-l.yaml").read_text())
        made: Any = RTDETR(str(folder / "rtdetr-l.yaml"))
    else:
        config |= {"scales": {"n": [0.34, 0.0625, 64]}, "scale": "n"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        made = YOLO(str(folder / f"{name}.yaml"))
    if name != "rtdetr":
        enliven(made.model, photographs())
    checkpoint = folder / f"{name}.pt"
    made.save(checkpoint)
    opened: Any = type(made)(str(checkpoint))
    size = [256, 256] if name == "rtdetr" else list(SHAPE)
    written = type(made)(str(checkpoint)).export(format="onnx", imgsz=size, opset=17, device="cpu", nms=False)
    return opened, Path(shutil.copy(written, folder / "model.onnx"))


def found_by(path: Path, backend: str, image: np.ndarray, confidence: float) -> Detections:
    spec = BackendSpec(path, "cpu", 2, precision="f32")
    if backend == "as on a GPU":
        return found_as_on_a_gpu(spec, image, confidence)
    detector = ModelDetector(open_backend(backend, spec))  # type: ignore[arg-type]
    (found,) = detector.detect([image], [DetectionJob(Selection(confidence, 0.7, 300))])
    return found


def found_as_on_a_gpu(spec: BackendSpec, image: np.ndarray, confidence: float) -> Detections:
    """By the code of GPUs, which runs on a CPU as well."""
    from sluiceway_detection.backends.cuda import CudaBackend

    made = CudaBackend(spec, max_batch=2, depth=1)
    look = looks_of(made.card, made.inputs, places=True)(image, DetectionJob(Selection(confidence, 0.7, 300)))
    inputs = next(look)
    outputs = made.start([*inputs, *inputs])()
    with pytest.raises(StopIteration) as ended:
        look.send(outputs[:1])
    return ended.value.value


def filled(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie within an outline [N, 2]; bool [height, width]."""
    inside = np.zeros(size, bool)
    across = np.arange(size[1]) + 0.5
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        rows = np.arange(size[0])
        rows = rows[(rows + 0.5 >= min(y0, y1)) & (rows + 0.5 < max(y0, y1))]
        if len(rows):
            crossing = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= across > crossing[:, None]
    return inside


def share(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two sets of pixels."""
    return float((a & b).sum() / max((a | b).sum(), 1))


@pytest.mark.parametrize("backend", ["openvino", "onnx", "torch", "as on a GPU"])
def test_regions_equal_those_of_predict(model: tuple[Any, Path], backend: str) -> None:
    yolo, path = model
    transformer = "rtdetr" in yolo.ckpt_path
    if transformer and backend in ("torch", "as on a GPU"):
        with pytest.raises(StartupError, match="GridSample is not supported"):
            found_by(path, backend, np.zeros((256, 256, 3), np.uint8), CONFIDENCE)
        return
    confidence = 0.0 if transformer else CONFIDENCE
    image = cv2.GaussianBlur(cv2.resize(cv2.imread(str(IMAGES / "coffee.jpg")), (256, 192)), (0, 0), BLUR_PX)
    options = {"imgsz": [256, 256] if transformer else SHAPE, "rect": False, "conf": confidence, "iou": 0.7}
    (expected,) = yolo.predict(image, device="cpu", max_det=300, verbose=False, **options)
    found = found_by(path, backend, image, confidence)
    boxes = expected.obb if expected.obb is not None else expected.boxes
    assert len(boxes) > 20
    assert abs(len(boxes) - len(found)) <= 0.02 * len(boxes)
    checked = unequal = 0
    for row in range(min(len(boxes), 40)):
        confident = np.abs(found.confidences - float(boxes.conf[row])) < 1e-3
        alike = np.flatnonzero(confident & (found.class_ids == int(boxes.cls[row])))
        checked += 1
        unequal += not any(equal(expected, row, found, at, (192, 256)) for at in alike.tolist())
    assert checked >= 20
    assert unequal == 0


def equal(expected: Any, row: int, found: Detections, at: int, size: tuple[int, int]) -> bool:
    """Whether what is told of two regions has more than .99 in common."""
    if expected.obb is not None:
        # Parts beyond the image are compared as well.
        outlines = [(expected.obb.xyxyxyxy[row].numpy() + 100) * FINE, (quad_of(found.shapes[at]) + 100) * FINE]
        large = ((size[0] + 200) * FINE, (size[1] + 200) * FINE)
        return share(*(filled(outline, large) for outline in outlines)) > 0.99
    corners = expected.boxes.xyxy[row].numpy()
    if np.abs(corners - found.boxes_xyxy_px[at]).max() > 0.2:
        return False
    if expected.masks is not None:
        outline = np.array(found.shapes[at].points_xy_px)  # type: ignore[union-attr]
        return share(expected.masks.data[row].numpy() > 0, filled(outline, size)) > 0.99
    if expected.keypoints is not None:
        assert found.keypoints is not None
        points = expected.keypoints.data[row].numpy()
        return bool(np.abs(points - found.keypoints[at]).max() < 0.2)
    return True
