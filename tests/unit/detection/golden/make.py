"""Write what ultralytics itself finds, so that the tests compare with it where it is not installed.

    python tests/unit/detection/golden/make.py MODEL WEIGHTS IMAGE...

MODEL names the result, MODEL.json. WEIGHTS is what `YOLO(...)` loads, a checkpoint or an ONNX file. Needs the export
extra. The input shape is the one that the stage chooses for an image, given as `imgsz` with `rect=False`, since
ultralytics would otherwise cut the padding of each image to its own multiple of 32.
"""

import json
import sys
from pathlib import Path

import cv2
from sluiceway_detection.inputs.shapes import choose_shape, default_shapes
from ultralytics import YOLO, __version__

# Lower than what is served by default, so that weak boxes are compared too.
CONFIDENCE, IOU, MAX_DETECTIONS = 0.05, 0.7, 1000


def main() -> None:
    name, weights, *images = sys.argv[1:]
    model = YOLO(weights, task="detect")
    results = {}
    for path in map(Path, images):
        shapes = default_shapes(640)
        if weights.endswith(".onnx"):
            model.predict(path, verbose=False, device="cpu", imgsz=1024 if "doclaynet" in name else 640)
            shapes = (tuple(model.predictor.model.imgsz),)
        height, width = choose_shape(cv2.imread(str(path)).shape[:2], shapes)
        (found,) = model.predict(
            path,
            imgsz=(height, width),
            rect=False,
            conf=CONFIDENCE,
            iou=IOU,
            max_det=MAX_DETECTIONS,
            device="cpu",
            verbose=False,
        )
        results[path.name] = {
            "input_shape": [height, width],
            "boxes": [[round(value, 3) for value in box] for box in found.boxes.xyxy.tolist()],
            "class_ids": [int(value) for value in found.boxes.cls.tolist()],
            "confidences": [round(value, 5) for value in found.boxes.conf.tolist()],
        }
        print(name, path.name, (height, width), len(found.boxes))
    record = {
        "made_by": f"ultralytics {__version__}",
        "weights": Path(weights).suffix,
        "confidence": CONFIDENCE,
        "iou": IOU,
        "max_detections": MAX_DETECTIONS,
        "images": results,
    }
    target = Path(__file__).with_name(f"{name}.json")
    target.write_text(json.dumps(record, separators=(",", ":")).replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
