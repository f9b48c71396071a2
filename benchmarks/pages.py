"""How well printed pages are read, by detector: python benchmarks/pages.py [--models NAME …] [--font FILE]

A4 pages at 300 dpi are drawn in several sizes, in one and two columns, and turned by some degrees; detector and
recogniser run in this process, as workers run them. The figure is F of the words that were read, beside the words that
were written, each as often as it is there. Recognition is `ppocrv6-tiny`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.crops import CropPlan, cut_crops
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.thresholds import thresholds_of
from sluiceway_detection.selection import DEFAULT_CONFIDENCE, DEFAULT_IOU, Selection
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_recognition.config import ModelConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import TextAnswer
from sluiceway_recognition.worker.recognizer import ModelRecognizer, load_model
from sluiceway_runtime import weights

DPI, WIDTH_IN, HEIGHT_IN, MARGIN_IN, GAP_IN = 300, 8.27, 11.69, 0.8, 0.35
PAGES = [(points, columns) for points in (12, 10, 9, 8) for columns in (1, 2)]
DEGREES = (2, 5, 10, 20)
TEXT = """
the harbour lets water down before noon and every lock keeper writes a line: Monday, 14 barges (seven laden), 1,204.50
paid; Tuesday 9 barges. Nobody may moor at the lower gate without a permit, except in fog or ice. Charges are due within
thirty days; see section 7.2 of the rules. Illness of a keeper is reported at once, and his relief comes by bicycle from
the next village.
"""
WORDS = TEXT.split()
MOST_REGIONS, MOST_BYTES, BATCH = 5000, 2**31, 16


def draw(points: int, columns: int, font_file: str | None) -> tuple[np.ndarray, list[str]]:
    """A page, uint8 [H, W, 3], and its words."""
    choose = random.Random(points * 10 + columns)
    size = points * DPI // 72
    font = ImageFont.truetype(font_file, size) if font_file else ImageFont.load_default(size)
    width, height, margin, gap = (round(inches * DPI) for inches in (WIDTH_IN, HEIGHT_IN, MARGIN_IN, GAP_IN))
    page = Image.new("L", (width, height), 250)
    pen, written = ImageDraw.Draw(page), []
    column_width = (width - 2 * margin - gap * (columns - 1)) // columns
    for column in range(columns):
        left = margin + column * (column_width + gap)
        for top in range(margin, height - margin - size, round(size * 1.3)):
            x = float(left)
            while x + font.getlength(word := choose.choice(WORDS)) <= left + column_width:
                pen.text((x, top), word, fill=25, font=font)
                written.append(word)
                x += font.getlength(word) + size * 0.28
    return np.asarray(cv2.cvtColor(np.asarray(page), cv2.COLOR_GRAY2BGR)), written


def turned(page: np.ndarray, degrees: float) -> np.ndarray:
    """The page turned, on a sheet that holds all of it."""
    height, width = page.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (round(height * sin + width * cos), round(height * cos + width * sin))
    turn[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)
    return np.asarray(cv2.warpAffine(page, turn, size, borderValue=(250, 250, 250)))


class Reader:
    """A detector and the recogniser, called one after the other."""

    def __init__(self, name: str, recognizer: ModelRecognizer) -> None:
        found = weights.resolve(name, kind="detection")
        known = thresholds_of(found.path, found.metadata)
        backend = open_backend("openvino", BackendSpec(found.path, "cpu", 1, "f32", known=known))
        self._detector, card = ModelDetector(backend), backend.card
        selection = Selection(card.confidence or DEFAULT_CONFIDENCE, card.iou or DEFAULT_IOU, MOST_REGIONS)
        self._job, self._recognizer = DetectionJob(selection), recognizer

    def read(self, page: np.ndarray) -> tuple[list[str], int, float, float]:
        """Words, regions, and milliseconds of CPU that detection and recognition took."""
        begun_s = time.process_time()
        (found,) = self._detector.detect([page], [self._job])
        detected_s = time.process_time()
        plan = CropPlan("line", 48, self._recognizer.crop_spec.max_width)
        crops = [crop.pixels for crop in cut_crops(page, found, (plan,), MOST_BYTES)]
        words: list[str] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            for answer in self._recognizer.launch(part, [1] * len(part))():
                words += answer.text.split() if isinstance(answer, TextAnswer) else []
        return words, len(crops), (detected_s - begun_s) * 1000, (time.process_time() - detected_s) * 1000


def f_score(written: list[str], read: list[str]) -> float:
    """Harmonic mean of precision and recall of words."""
    common = sum((Counter(written) & Counter(read)).values())
    return 2 * common / (len(written) + len(read))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ppocrv6-tiny-det", "text-nano"], help="names of detectors")
    parser.add_argument("--font", type=Path, help="a TrueType font; default the one in Pillow")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    model = ModelConfig(name="ppocrv6-tiny", dynamic_shapes=True, precision="f32")
    (plan,) = plan_models((model,), lambda name: weights.resolve(name, kind="recognition"))
    recognizer = load_model(plan, "cpu", 1)
    readers = {name: Reader(name, recognizer) for name in options.models}
    font = str(options.font) if options.font else None
    pages = {f"{points} pt, {columns} column(s)": draw(points, columns, font) for points, columns in PAGES}
    straight, written = pages["10 pt, 1 column(s)"]
    pages |= {f"10 pt, turned by {degrees}": (turned(straight, degrees), written) for degrees in DEGREES}
    for title, (page, words) in pages.items():
        for name, reader in readers.items():
            read, regions, detection_ms, recognition_ms = reader.read(page)
            print(
                f"{title:22} {len(words):5} words  {name:18} F {f_score(words, read):.3f}  {regions:5} regions  "
                f"detection {detection_ms:5.0f} ms, recognition {recognition_ms:6.0f} ms of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
