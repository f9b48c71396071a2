"""Write tiny YOLO models with seeded random weights, and the numbers that torch gets from them.

    python tests/unit/detection/models/make.py

Real architectures, so that every layer is there, at a sixteenth of the width, so that the files are small. Needs the
export extra.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from sluiceway_detection.export import export_checkpoint, load_checkpoint
from ultralytics import YOLO
from ultralytics.utils import ROOT

FOLDER = Path(__file__).parent
CLASSES = 3
SHAPE = (96, 64)
ARCHITECTURES = {
    "yolo11-pico": "11/yolo11",
    "yolo26-pico": "26/yolo26",
    "yolo26-pico-nms-free": "26/yolo26",
    "yolo26-pico-segment": "26/yolo26-seg",
}


def make(name: str, source: str, folder: Path) -> None:
    torch.manual_seed(11)
    config = yaml.safe_load((ROOT / "cfg" / "models" / f"{source}.yaml").read_text())
    config |= {"nc": CLASSES, "scales": {"n": [0.34, 0.0625, 64]}, "scale": "n"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    yolo = YOLO(str(path))
    enliven(yolo.model)
    nms_free = name == "yolo26-pico-nms-free"
    yolo.model.model[-1].end2end = nms_free
    checkpoint = folder / f"{name}.pt"
    yolo.save(checkpoint)
    if nms_free or yolo.task != "detect":  # what our own export does not make
        written = YOLO(str(checkpoint)).export(format="onnx", imgsz=list(SHAPE), opset=17, device="cpu", nms=False)
        shutil.copy(written, FOLDER / f"{name}.onnx")
    else:
        export_checkpoint(checkpoint, FOLDER / f"{name}.onnx")
    if yolo.task != "detect":
        return
    image = np.random.default_rng(7).integers(0, 256, (*SHAPE, 3), np.uint8)
    pixels = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        output = load_checkpoint(checkpoint)(pixels)
    np.savez_compressed(FOLDER / f"{name}.npz", image=image, output=output[0][0].numpy())


def enliven(model: torch.nn.Module) -> None:
    """Normalise every layer to noise, and let the heads swing: a fresh network says the same everywhere."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what comes
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(4, 3, *SHAPE))
    model.eval()
    for name, parameter in model.model[-1].named_parameters():
        if "cv3" in name and name.endswith(".2.weight"):
            parameter.data *= 8
        elif "cv3" in name and name.endswith(".2.bias"):
            parameter.data /= 4


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, source in ARCHITECTURES.items():
            make(name, source, Path(folder))


if __name__ == "__main__":
    main()
