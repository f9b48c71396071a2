"""Text that does not lie: cut out as detection cuts it, and read as recognition reads it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from rendered_lines import WORDS, render, rendered_lines
from sluiceway_detection.crops import CropPlan, cut_crops
from sluiceway_detection.types import Detections, Region, RotatedBox
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import CropTask, ModelFacts, PixelFormat, TextAnswer
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.pool import Payload, Placement

COUNT = 100
MARGIN_PX = 20


def reader_of(name: str) -> tuple[RecognitionHandler, ModelFacts]:
    config = RecognitionConfig.model_validate({"models": [{"name": name, "buckets": [160, 320, 1920]}]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, config.file_limits))
    (facts,) = handler.setup(Placement(0, "cpu", None, 1))["models"]
    return handler, facts


@pytest.fixture(scope="module")
def reader() -> tuple[RecognitionHandler, ModelFacts]:
    return reader_of("ppocrv6-tiny")


def rows_of(line: np.ndarray) -> np.ndarray:
    """The rows in which there is ink."""
    return np.flatnonzero((line < 128).any(axis=(1, 2)))


def words_running_down() -> list[tuple[str, np.ndarray]]:
    """Words of several sizes, turned clockwise by 90 degrees, with paper around them."""
    chance = random.Random(5)
    # A word of two letters is no taller than wide, however it is turned.
    long = [word for word in WORDS if len(word) > 3]
    made = []
    for _ in range(COUNT):
        word = chance.choice(long)
        line = render(word, chance.choice([24, 30, 34]))
        rows = rows_of(line)
        line = np.rot90(line[max(0, rows[0] - 4) : rows[-1] + 5], -1)
        made.append((word, np.pad(line, ((MARGIN_PX,) * 2, (MARGIN_PX,) * 2, (0, 0)), constant_values=255)))
    return made


def region_of(picture: np.ndarray, *, turned: bool) -> Region:
    height, width = (side - 2 * MARGIN_PX for side in picture.shape[:2])
    box = (MARGIN_PX, MARGIN_PX, MARGIN_PX + width, MARGIN_PX + height)
    centre = (picture.shape[1] / 2, picture.shape[0] / 2)
    return Region(box, 0, 0.9, RotatedBox(centre, width, height, 0.5) if turned else None)


@pytest.mark.parametrize("turned", [False, True], ids=["upright-boxes", "rotated-boxes"])
def test_words_that_run_down_are_read(reader: tuple[RecognitionHandler, ModelFacts], turned: bool) -> None:
    handler, facts = reader
    spec = facts.crop_spec
    plan = CropPlan("words", spec.height, spec.max_width, turn_ratio=spec.turn_ratio)
    right = 0
    for word, picture in words_running_down():
        found = Detections.from_regions([region_of(picture, turned=turned)], *picture.shape[:2])
        (crop,) = cut_crops(np.ascontiguousarray(picture), found, (plan,), 10**8)
        assert crop.turned
        task = CropTask(facts.name, crop.pixels.shape[0], PixelFormat.BGR, rotation_degrees=90)
        (answer,) = handler.run([Payload(task, (crop.pixels.tobytes(),))])
        assert isinstance(answer, Payload)
        assert isinstance(answer.meta, TextAnswer)
        assert answer.meta.rotation_degrees == 90
        right += answer.meta.text == word
    assert right >= 95


def test_narrow_letters_are_read_as_they_stand(reader: tuple[RecognitionHandler, ModelFacts]) -> None:
    """A detector of words finds a 1 alone, whose region is higher than wide, as that of text that runs down."""
    handler, facts = reader
    spec = facts.crop_spec
    plan = CropPlan("words", spec.height, spec.max_width, turn_ratio=spec.turn_ratio)
    right = []
    for size in (24, 28, 32, 36):
        for letter in "1tfrJ7":  # an I and an l are drawn alike
            line = render(letter, size)
            rows, columns = rows_of(line), rows_of(line.transpose(1, 0, 2))
            letters = line[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2]
            found = Detections.from_regions(
                [Region((0, 0, letters.shape[1], letters.shape[0]), 0, 0.9)], *letters.shape[:2]
            )
            (crop,) = cut_crops(np.ascontiguousarray(letters), found, (plan,), 10**8)
            if crop.turned:
                answer = read(handler, facts.name, crop.pixels, rotation_degrees=90)
                right.append(answer.text == letter and answer.rotation_degrees == 0)
    assert len(right) >= 15
    assert sum(right) >= 0.8 * len(right)


def read(handler: RecognitionHandler, model: str, pixels: np.ndarray, *, rotation_degrees: int = 0) -> TextAnswer:
    task = CropTask(model, pixels.shape[0], PixelFormat.BGR, rotation_degrees=rotation_degrees)
    (answer,) = handler.run([Payload(task, (np.ascontiguousarray(pixels).tobytes(),))])
    assert isinstance(answer, Payload)
    assert isinstance(answer.meta, TextAnswer)
    return answer.meta


def test_lines_that_stand_on_their_heads_are_read(reader: tuple[RecognitionHandler, ModelFacts]) -> None:
    handler, facts = reader
    assert facts.upright == "ppocr-cls"
    lines = [(text, pixels) for text, pixels in rendered_lines(COUNT) if len(text) > 3]
    as_they_are = [read(handler, facts.name, pixels) for _, pixels in lines]
    turned = [read(handler, facts.name, np.rot90(pixels, 2)) for _, pixels in lines]
    # None that is upright is turned.
    assert {answer.rotation_degrees for answer in as_they_are} == {0}
    same = sum(
        answer.rotation_degrees == 180 and answer.text == upright.text
        for answer, upright in zip(turned, as_they_are, strict=True)
    )
    assert same >= 0.97 * len(lines)


def short_words() -> list[np.ndarray]:
    """Up to four times as wide as high."""
    chance = random.Random(8)
    drawn = [render(word, chance.choice([24, 30, 34])) for word in ("Sum", "ISBN", "No.", "and", "house", *WORDS)]
    inked = [line[max(0, rows[0] - 4) : rows[-1] + 5] for line in drawn if len(rows := rows_of(line))]
    return [line for line in inked if line.shape[1] <= 4 * line.shape[0]][:COUNT]


def test_short_words_upside_down_are_read(reader: tuple[RecognitionHandler, ModelFacts]) -> None:
    handler, facts = reader
    short = short_words()
    upright = [read(handler, facts.name, line) for line in short]
    assert {answer.rotation_degrees for answer in upright} == {0}
    turned = [read(handler, facts.name, np.rot90(line, 2)) for line in short]
    same = sum(b.rotation_degrees == 180 and b.text == a.text for a, b in zip(upright, turned, strict=True))
    assert same >= 0.9 * len(short)


def test_the_small_models_own_classifier_can_be_sure() -> None:
    """It reads words on their heads, too, with some of their letters left out."""
    handler, facts = reader_of("ppocrv6-small")
    short = short_words()[::4]
    upright = [read(handler, facts.name, line) for line in short]
    turned = [read(handler, facts.name, np.rot90(line, 2)) for line in short]
    same = sum(b.rotation_degrees == 180 and b.text == a.text for a, b in zip(upright, turned, strict=True))
    assert same >= 0.8 * len(short)


def test_lines_that_run_up_are_read(reader: tuple[RecognitionHandler, ModelFacts]) -> None:
    handler, facts = reader
    # As detection cuts them: turned anticlockwise, after which they stand on their heads.
    lines = [(text, np.rot90(pixels, 2)) for text, pixels in rendered_lines(20) if len(text) > 8]
    answers = [read(handler, facts.name, pixels, rotation_degrees=90) for _, pixels in lines]
    assert {answer.rotation_degrees for answer in answers} == {270}
    assert sum(answer.text == text for answer, (text, _) in zip(answers, lines, strict=True)) >= 0.9 * len(lines)
