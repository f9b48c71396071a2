"""What the recogniser reads is what the same weights read in ONNX Runtime."""

from __future__ import annotations

import random
from collections.abc import Callable
from difflib import SequenceMatcher

import numpy as np
import pytest
from rendered_lines import render
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import CropTask, PixelFormat, TextAnswer
from sluiceway_recognition.worker import recognizer
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement

MODELS = ("ppocrv6-tiny", "ppocrv5-mobile", "ppocrv6-small")


def make_handler(*models: object, threads: int = 1) -> RecognitionHandler:
    config = RecognitionConfig.model_validate({"models": models})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, ImageLimits(config.max_crop_bytes, config.max_crop_px)))
    handler.setup(Placement(0, "cpu", None, threads))
    return handler


@pytest.fixture(scope="module")
def handlers() -> Callable[[str], RecognitionHandler]:
    made: dict[str, RecognitionHandler] = {}

    def make(name: str) -> RecognitionHandler:
        if name not in made:
            # f32 everywhere, also where the CPU would take bf16: this compares with f32.
            made[name] = make_handler({"name": name, "precision": "f32"})
        return made[name]

    return make


def payload(crop: np.ndarray, model: str) -> Payload:
    return Payload(CropTask(model, crop.shape[0], PixelFormat.BGR), (crop.tobytes(),))


def read(handler: RecognitionHandler, crops: list[np.ndarray], model: str) -> list[TextAnswer]:
    answers = []
    for result in handler.run([payload(crop, model) for crop in crops]):
        assert isinstance(result, Payload), result
        assert isinstance(result.meta, TextAnswer)
        answers.append(result.meta)
    return answers


@pytest.mark.usefixtures("network_alone")
@pytest.mark.parametrize("model", MODELS)
def test_strings_are_those_of_onnx_runtime(model: str, handlers, reference, lines, page_words) -> None:
    crops = [crop for _, crop in lines] + page_words
    answers = read(handlers(model), crops, model)
    for crop, answer in zip(crops, answers, strict=True):
        text, confidence = reference(model)(crop)
        assert answer.text == text
        assert answer.confidence == pytest.approx(confidence, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_rendered_lines_are_read(model: str, handlers, lines) -> None:
    plain = [(text, crop) for text, crop in lines if text.isascii()]
    answers = read(handlers(model), [crop for _, crop in plain], model)
    likeness = [
        SequenceMatcher(None, text, answer.text).ratio() for (text, _), answer in zip(plain, answers, strict=True)
    ]
    assert np.mean(likeness) > 0.9


def test_a_letter_seen_as_long_as_two_is_read_as_two(handlers, monkeypatch) -> None:
    model, seen = "ppocrv6-tiny", []
    doubles = recognizer.with_doubles

    def looked_at(crops, answers):
        seen.extend(answers)
        return doubles(crops, answers)

    monkeypatch.setattr(recognizer, "with_doubles", looked_at)
    (answer,) = read(handlers(model), [render("sluice gate river water", 30, 0, 255)], model)
    assert seen[0].text == answer.text
    assert len(seen[0].spans) == len(seen[0].text)


def test_a_string_never_depends_on_its_batch_mates(handlers, lines, page_words) -> None:
    handler, model = handlers("ppocrv6-tiny"), "ppocrv6-tiny"
    crops = [crop for _, crop in lines] + page_words
    alone = [read(handler, [crop], model)[0] for crop in crops]
    chance = random.Random(11)
    for _ in range(12):
        picked = [chance.randrange(len(crops)) for _ in range(chance.randint(2, 9))]
        together = read(handler, [crops[index] for index in picked], model)
        # Equal to the last bit, confidences included.
        assert together == [alone[index] for index in picked]


def test_nor_on_the_number_of_threads(handlers, lines) -> None:
    model = "ppocrv6-tiny"
    two = make_handler({"name": model, "precision": "f32"}, threads=2)
    crops = [crop for _, crop in lines[:9]]
    assert read(two, crops, model) == read(handlers(model), crops, model)


def test_one_dynamic_graph_reads_the_same(handlers, lines) -> None:
    model = "ppocrv6-tiny"
    dynamic = make_handler({"name": model, "precision": "f32", "dynamic_shapes": True})
    crops = [crop for _, crop in lines[:9]]
    expected = read(handlers(model), crops, model)
    for answer, other in zip(read(dynamic, crops, model), expected, strict=True):
        assert answer.text == other.text
        assert answer.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_channel_orders_and_sizes_of_raw_pixels(handlers, lines) -> None:
    handler, model = handlers("ppocrv6-tiny"), "ppocrv6-tiny"
    crop = lines[0][1].copy()
    crop[:, :, 0] //= 2  # so that the order of channels matters
    expected = read(handler, [crop], model)[0]
    rgb = np.ascontiguousarray(crop[:, :, ::-1])
    result = handler.run([Payload(CropTask(model, rgb.shape[0], PixelFormat.RGB), (rgb.tobytes(),))])
    assert result[0].meta == expected
    gray = lines[0][1][:, :, 0]
    result = handler.run([Payload(CropTask(model, gray.shape[0], PixelFormat.GRAY), (gray.tobytes(),))])
    assert result[0].meta == read(handler, [lines[0][1]], model)[0]


def test_several_models_in_one_worker(lines) -> None:
    handler = make_handler("ppocrv6-tiny", {"name": "second", "weights": "ppocrv6-tiny"})
    crop = lines[0][1]
    first, second = handler.run([payload(crop, "ppocrv6-tiny"), payload(crop, "second")])
    assert first.meta == second.meta
