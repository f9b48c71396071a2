"""Crops to read, and what ONNX Runtime reads in them."""

from __future__ import annotations

import random
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from ppocr_reference import Reference, reference_of
from rendered_lines import render
from sluiceway_recognition.worker import recognizer
from sluiceway_runtime import weights

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


@pytest.fixture
def network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is put into texts by what their crops show."""
    for put_in in ("with_doubles", "with_spaces"):
        monkeypatch.setattr(recognizer, put_in, lambda _, answers: answers)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    made: dict[str, Reference] = {}

    def make(name: str) -> Reference:
        if name not in made:
            made[name] = reference_of(name)
        return made[name]

    return make


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
