"""Crops to read, and what ONNX Runtime reads in them. Nothing of the reference comes from the services."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image, ImageDraw, ImageFont
from sluiceway_runtime import weights

# The widths that crops are padded to, written out a second time so that a change of the product is noticed.
BUCKETS = (64, 96, 128, 160, 192, 256, 320, 400, 512, 720, 1120, 1920)
WORDS = (
    "Sluice",
    "gate",
    "42",
    "coins",
    "MARKERS",
    "region-based",
    "(segmentation)",
    "3.14",
    "€",
    "total:",
    "1,299.00",
)
WORDS += ("Straße", "naïve", "#7", "OK?", "50%", "A/B")


class Reference:
    """A PP-OCR recogniser run directly: normalise, pad with zeros, ONNX Runtime, best path."""

    def __init__(self, model: Path, config: Path | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        if config is None:
            characters = self.session.get_modelmeta().custom_metadata_map["character"].split("\n")
        else:
            characters = yaml.safe_load(config.read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
        self.classes = ["", *characters, " "]

    def probabilities(self, crop: np.ndarray) -> np.ndarray:
        width = crop.shape[1]
        padded = np.zeros((1, 3, 48, next(bucket for bucket in BUCKETS if bucket >= width)), dtype=np.float32)
        padded[0, :, :, :width] = crop.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
        return self.session.run(None, {self.session.get_inputs()[0].name: padded})[0][0]

    def __call__(self, crop: np.ndarray) -> tuple[str, float]:
        probabilities = self.probabilities(crop)
        assert probabilities.shape[1] == len(self.classes)
        text, confidences, previous = "", [], 0
        for step, best in enumerate(probabilities.argmax(axis=1).tolist()):
            if best not in (0, previous):
                text += self.classes[best]
                confidences.append(float(probabilities[step, best]))
            previous = best
        return text, sum(confidences) / len(confidences) if confidences else 0.0


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    made: dict[str, Reference] = {}

    def make(name: str) -> Reference:
        if name not in made:
            found = weights.resolve(name, kind="recognition")
            made[name] = Reference(found.path, found.files.get("config"))
        return made[name]

    return make


def render(text: str, size: int = 32, ink: int = 0, paper: int = 255) -> np.ndarray:
    """One line of text, uint8 [48, w, 3]."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (round(right - left) + 12, 48), paper)
    ImageDraw.Draw(image).text((6 - left, (48 - (bottom - top)) / 2 - top), text, fill=ink, font=font)
    return np.repeat(np.asarray(image)[:, :, None], 3, axis=2)


@pytest.fixture(scope="session")
def lines() -> list[tuple[str, np.ndarray]]:
    """Forty lines of one to six words in several sizes and shades, as (text, crop)."""
    chance = random.Random(7)
    made = []
    for _ in range(40):
        text = " ".join(chance.sample(WORDS, chance.randint(1, 6)))
        ink, paper = chance.choice([(0, 255), (40, 210), (230, 30)])
        made.append((text, render(text, chance.choice([24, 30, 34]), ink, paper)))
    return made


@pytest.fixture(scope="session")
def page_words() -> list[np.ndarray]:
    """Words of a scanned page, cut out where ink is and brought to 48 rows; real pixels, found without any model."""
    page = cv2.imread(str(weights.pull_samples(["page.png"])["page.png"]))
    ink = cv2.adaptiveThreshold(
        cv2.cvtColor(page, cv2.COLOR_BGR2GRAY), 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, 31, 15
    )
    words = cv2.dilate(ink, np.ones((3, 7), dtype=np.uint8))
    _, _, found, _ = cv2.connectedComponentsWithStats(words)
    crops = []
    for x, y, width, height, _ in found[1:].tolist():
        if 8 <= height <= 40 and 12 <= width <= 300:
            word = page[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2]
            scaled = max(1, round(word.shape[1] * 48 / word.shape[0]))
            crops.append(np.ascontiguousarray(cv2.resize(word, (scaled, 48))))
    assert len(crops) >= 30
    return crops
