"""Word boxes of rendered lines: cut as detection cuts, found by recognition, put on the page by the orchestrator."""

from __future__ import annotations

import math
import random
from statistics import median

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rendered_lines import WORDS
from sluiceway_detection.crops import CropPlan, cut_crops
from sluiceway_detection.types import Detections, Region, RotatedBox
from sluiceway_orchestrator.convert.words import place_words
from sluiceway_orchestrator.geometry import TurnedBox
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import CropTask, PixelFormat, TextAnswer
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.pool import Payload, Placement

from sluiceway.common.v1 import value_pb2

Box = tuple[float, float, float, float]

MODEL = "ppocrv6-tiny"
LINES, SIDE = 30, 1600
PLAN = CropPlan("words", 48, 1920, turn_ratio=1.5)


@pytest.fixture(scope="module")
def handler() -> RecognitionHandler:
    config = RecognitionConfig.model_validate({"models": [{"name": MODEL, "buckets": [320, 720, 1120, 1920]}]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    made = create(worker_config(plans, config.file_limits))
    made.setup(Placement(0, "cpu", None, 1))
    return made


def page() -> tuple[np.ndarray, list[Box], list[list[tuple[str, Box]]]]:
    """A square page, a box around each of its lines with some paper around it, and its words."""
    chance = random.Random(4)
    image = Image.new("L", (SIDE, SIDE), 248)
    draw = ImageDraw.Draw(image)
    lines: list[Box] = []
    words: list[list[tuple[str, Box]]] = []
    for number in range(LINES):
        font = ImageFont.load_default(chance.choice([22, 26, 30]))
        x, y = 100.0, 60 + 50.0 * number
        row: list[tuple[str, Box]] = []
        while x < SIDE - 300:
            word = chance.choice(WORDS)
            box = draw.textbbox((x, y), word, font=font)
            draw.text((x, y), word, fill=30, font=font)
            row.append((word, box))
            x = box[2] + font.size * 0.35
        words.append(row)
        lefts, tops, rights, bottoms = zip(*[box for _, box in row], strict=True)
        lines.append((min(lefts) - 5, min(tops) - 5, max(rights) + 5, max(bottoms) + 5))
    return np.repeat(np.asarray(image)[:, :, None], 3, axis=2), lines, words


def turn(point: tuple[float, float], degrees: float) -> tuple[float, float]:
    """Where a point lies when the page is turned about its centre."""
    angle, x, y = math.radians(degrees), point[0] - SIDE / 2, point[1] - SIDE / 2
    return x * math.cos(angle) - y * math.sin(angle) + SIDE / 2, x * math.sin(angle) + y * math.cos(angle) + SIDE / 2


def iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second))
    return width * height / (areas - width * height)


@pytest.mark.parametrize("degrees", [0, 6, 90, 180, 270])
def test_words_lie_where_they_were_drawn(handler: RecognitionHandler, degrees: int) -> None:
    image, lines, words = page()
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), -degrees, 1)
    turned = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderValue=(248, 248, 248))
    lean = degrees % 90  # of the boxes: what is turned by a quarter lies upright again
    shares: list[float] = []
    for line, row in zip(lines, words, strict=True):
        width, height = line[2] - line[0], line[3] - line[1]
        sides = (height, width) if degrees in (90, 270) else (width, height)
        x, y = turn(((line[0] + line[2]) / 2, (line[1] + line[3]) / 2), degrees)
        around = (x - sides[0] / 2, y - sides[1] / 2, x + sides[0] / 2, y + sides[1] / 2)
        region = Region(around, 0, 0.9, RotatedBox((x, y), *sides, lean))
        (crop,) = cut_crops(turned, Detections.from_regions([region], SIDE, SIDE), (PLAN,), 10**8)
        task = CropTask(MODEL, 48, PixelFormat.BGR, rotation_degrees=90 * crop.turned, words=True)
        (answer,) = handler.run([Payload(task, (crop.pixels.tobytes(),))])
        assert isinstance(answer, Payload)
        assert isinstance(answer.meta, TextAnswer)
        text = value_pb2.Text(text=answer.meta.text, rotation_degrees=answer.meta.rotation_degrees)
        text.words.extend(
            value_pb2.Word(text=w.text, confidence=w.confidence, parts=w.parts) for w in answer.meta.words
        )
        place_words(text, TurnedBox(x, y, *sides, lean))
        found = [upright_again(word, degrees) for word in text.words]
        # In order along the line.
        assert found == sorted(found)
        shares += [max((iou(box, other) for other in found), default=0.0) for _, box in row]
    assert len(shares) > 200
    assert median(shares) >= 0.8
    assert sum(share >= 0.6 for share in shares) >= 0.95 * len(shares)


def upright_again(word: value_pb2.Word, degrees: int) -> Box:
    """Where a word would lie on the page before it was turned."""
    if word.geometry.HasField("box"):
        box = word.geometry.box
        (x0, y0), (x1, y1) = turn((box.x0, box.y0), -degrees), turn((box.x1, box.y1), -degrees)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    leaning = word.geometry.rotated_box
    x, y = turn((leaning.center.x, leaning.center.y), -degrees)
    return x - leaning.width / 2, y - leaning.height / 2, x + leaning.width / 2, y + leaning.height / 2
