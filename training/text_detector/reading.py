"""Word F1 of detection and recognition together, on pages that rendering.py made.

python -m training.text_detector.reading --pages DIR --detector X.onnx --recogniser R.onnx --characters inference.yml
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import yaml
from PIL import Image

from .inference import Detector

_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


def tokens(text: str) -> Counter[str]:
    """Words as scored: runs without spaces, and each Chinese character by itself."""
    return Counter(_TOKEN.findall(text))


class Recogniser:
    """PP-OCRv6 tiny through OpenVINO: crops of height 48, BGR, x / 127.5 - 1, greedy CTC."""

    def __init__(self, path: Path, characters: Path) -> None:
        table = yaml.safe_load(characters.read_text())["PostProcess"]["character_dict"]
        self._characters = ["", *[str(c) for c in table], " "]
        core = ov.Core()
        self._model = core.compile_model(
            core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        )

    def read(self, crop_rgb: np.ndarray) -> str:
        """The text of one upright crop, uint8 [h, w, 3]."""
        width = int(np.clip(np.ceil(crop_rgb.shape[1] * 48 / crop_rgb.shape[0]), 16, 1600))
        blob = cv2.resize(crop_rgb, (width, 48))[..., ::-1].astype(np.float32) / 127.5 - 1
        wide = max(320, -(-width // 64) * 64)  # few widths: each new one costs a compilation
        padded = np.zeros((1, 3, 48, wide), np.float32)
        padded[0, :, :, :width] = blob.transpose(2, 0, 1)
        best = self._model([padded])[0][0].argmax(1)
        kept = [k for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1])]
        return "".join(self._characters[k] for k in kept)


def score(pages: Path, detector: Detector, recogniser: Recogniser, pad: float = 0.06) -> dict[str, float]:
    """Precision, recall and F1 of words over all pages; words are matched as multisets a page."""
    right = said = there = boxes = 0
    for name, text in json.loads((pages / "words.json").read_text()).items():
        image = np.asarray(Image.open(pages / name).convert("RGB"))
        found: Counter[str] = Counter()
        for x0, y0, x1, y1 in detector.detect(image)[:, :4]:
            margin = pad * (y1 - y0)
            left, top = int(max(0, x0 - margin)), int(max(0, y0 - margin))
            crop = image[top : int(np.ceil(y1 + margin)), left : int(np.ceil(x1 + margin))]
            boxes += 1
            if min(crop.shape[:2]) > 1:
                found += tokens(recogniser.read(crop))
        wanted = tokens(text)
        right, said, there = right + (found & wanted).total(), said + found.total(), there + wanted.total()
    precision, recall = right / max(1, said), right / max(1, there)
    return {
        "boxes": boxes,
        "words": there,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True, action="append")
    parser.add_argument("--recogniser", type=Path, required=True)
    parser.add_argument("--characters", type=Path, required=True)
    parser.add_argument("--confidence", type=float, help="instead of each detector's own")
    parser.add_argument("--iou", type=float, help="instead of each detector's own")
    arguments = parser.parse_args()
    recogniser = Recogniser(arguments.recogniser, arguments.characters)
    for path in arguments.detector:
        detector = Detector(path, confidence=arguments.confidence, iou=arguments.iou)
        found = score(arguments.pages, detector, recogniser)
        print(path.name, {key: round(value, 4) for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
