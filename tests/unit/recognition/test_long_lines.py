"""Lines that are longer than a model computes at once."""

from __future__ import annotations

import random

import numpy as np
import pytest
from rendered_lines import WORDS, render
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.text.long_lines import Piece, divided, joined
from sluiceway_recognition.types import CropTask, PixelFormat, TextAnswer, WordAnswer
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.errors import ModelFailed
from sluiceway_runtime.pool import Payload, Placement

MOST = 960


@pytest.fixture(scope="module")
def handler() -> RecognitionHandler:
    model = {"name": "ppocrv6-tiny", "max_width": MOST, "buckets": [480, MOST]}
    config = RecognitionConfig.model_validate({"models": [model]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    assert plans[0].crop_spec.max_width == 4 * MOST
    made = create(worker_config(plans, config.file_limits))
    made.setup(Placement(0, "cpu", None, 1))
    return made


def line(seed: int = 1) -> tuple[str, np.ndarray]:
    chance = random.Random(seed)
    words = [chance.choice(WORDS) for _ in range(30)]
    return " ".join(words), render(" ".join(words), 30)


def read(handler: RecognitionHandler, *crops: np.ndarray, **wish: bool) -> list[TextAnswer]:
    task = CropTask("ppocrv6-tiny", 48, PixelFormat.BGR, **wish)
    results = handler.run([Payload(task, (np.ascontiguousarray(crop).tobytes(),)) for crop in crops])
    answers = [result.meta for result in results if isinstance(result, Payload)]
    assert len(answers) == len(crops)
    return answers


def test_a_long_line_is_read_to_its_end(handler: RecognitionHandler) -> None:
    text, pixels = line()
    assert pixels.shape[1] > 2.5 * MOST
    short = render("canal lock", 30)
    long_one, short_one, turned = read(handler, pixels, short, np.rot90(pixels, 2))
    assert long_one.text == turned.text == text
    assert (long_one.rotation_degrees, turned.rotation_degrees) == (0, 180)
    assert short_one.text == "canal lock"
    assert len(long_one.characters) == len(long_one.character_confidences) == len(text)
    # And alone it is the same.
    assert read(handler, pixels) == [long_one]


@pytest.mark.parametrize("turned", [False, True])
def test_words_of_a_long_line_lie_in_all_of_it(handler: RecognitionHandler, turned: bool) -> None:
    text, pixels = line(2)
    (answer,) = read(handler, np.rot90(pixels, 2) if turned else pixels, words=True)
    assert [word.text for word in answer.words] == text.split()
    ink = np.flatnonzero((pixels < 128).any(axis=(0, 2)))
    assert answer.words[0].parts[0] * pixels.shape[1] == pytest.approx(ink[0], abs=2)
    assert answer.words[-1].parts[2] * pixels.shape[1] == pytest.approx(ink[-1] + 1, abs=2)
    edges = [edge for word in answer.words for edge in (word.parts[0], word.parts[2])]
    assert edges == sorted(edges)


@pytest.mark.parametrize("width", [1, 960, 961, 1343, 1344, 1345, 3840])
def test_pieces_are_all_of_a_line_and_none_is_too_long(width: int) -> None:
    for crop in (
        np.full((48, width, 3), 200, np.uint8),
        np.random.default_rng(width).integers(0, 256, (48, width, 3), dtype=np.uint8),
        np.where(np.arange(width)[None, :, None] % 9 < 2, 255, 0).astype(np.uint8).repeat(48, 0).repeat(3, 2),
    ):
        pieces = divided(crop, MOST)
        assert all(1 <= piece.pixels.shape[1] <= MOST for piece in pieces)
        assert (np.concatenate([piece.pixels for piece in pieces], axis=1) == crop).all()
        assert (len(pieces) == 1) is (width <= MOST)


def test_a_word_that_has_to_be_cut_is_one_word_all_the_same(handler: RecognitionHandler) -> None:
    pixels = render("seg" * 40, 30)
    pieces = divided(pixels, MOST)
    assert len(pieces) > 1
    assert not any(piece.apart for piece in pieces[1:])
    for crop in (pixels, np.rot90(pixels, 2)):
        (answer,) = read(handler, crop)
        assert " " not in answer.text
        assert len(answer.text) > 110


def test_no_word_is_cut() -> None:
    _, pixels = line(3)
    for piece in divided(pixels, MOST)[1:]:
        assert (piece.pixels[:, :2] > 128).all()


def piece(begin: int, width: int) -> Piece:
    return Piece(begin, np.zeros((48, width, 3), np.uint8))


def test_most_letters_decide_whether_a_line_stands_on_its_head() -> None:
    texts = [
        TextAnswer("up", 1.0, ("u", "p"), (0.8, 0.6)),
        TextAnswer("rest", 0.9, tuple("rest"), (0.9,) * 4, 180, (WordAnswer("rest", 0.9, (0.0, 0.0, 1.0, 1.0)),)),
    ]
    whole = joined([piece(0, 100), piece(100, 300)], texts)
    assert isinstance(whole, TextAnswer)
    assert (whole.text, whole.rotation_degrees) == ("rest up", 180)
    assert whole.character_confidences == (0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.6)
    assert whole.words == (WordAnswer("rest", 0.9, (0.0, 0.0, 0.75, 1.0)),)


def test_a_line_that_failed_in_a_piece_failed() -> None:
    fault = ModelFailed("no number")
    assert joined([piece(0, 9), piece(9, 9)], [TextAnswer("a", 0.5, ("a",), (0.5,)), fault]) is fault
    empty = TextAnswer("", 0.0)
    assert joined([piece(0, 9), piece(9, 9)], [empty, empty]) == empty
