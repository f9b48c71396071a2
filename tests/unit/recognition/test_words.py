"""Where words lie in their crops: drawn letters, seen by the model at about the right columns."""

from __future__ import annotations

import numpy as np
import pytest
from sluiceway_recognition.text import ctc
from sluiceway_recognition.text.words import with_words, words_of
from sluiceway_recognition.types import TextAnswer
from sluiceway_runtime.errors import ModelFailed

HEIGHT, WIDTH = 48, 400
# Left and right edge, top and bottom of each letter; a space between the third and the fourth.
LETTERS = [(20, 40, 16, 36), (46, 66, 8, 36), (72, 92, 16, 44), (120, 140, 16, 36), (146, 166, 10, 36)]
TEXT = "abc de"


def drawn(paper: int = 250, ink: int = 20) -> np.ndarray:
    crop = np.full((HEIGHT, WIDTH, 3), paper, np.uint8)
    for left, right, top, bottom in LETTERS:
        crop[top:bottom, left:right] = ink
    return crop


def seen(text: str = TEXT) -> TextAnswer:
    """Each letter at a few columns somewhere within it, and the space between its neighbours."""
    letters = iter(LETTERS)
    spans = [(100.0, 108.0) if character == " " else (next(letters)[0] + 2.0, 0.0) for character in text]
    spans = [(begin, end or begin + 8) for begin, end in spans]
    return TextAnswer(text, 0.9, tuple(text), (0.8, 0.9, 1.0, 0.5, 0.9, 0.7)[: len(text)], spans=tuple(spans))


def edges(words: list, width: int = WIDTH) -> list[tuple[float, ...]]:
    return [
        tuple(round(part * size) for part, size in zip(word.parts, (width, HEIGHT) * 2, strict=True)) for word in words
    ]


@pytest.mark.parametrize(("paper", "ink"), [(250, 20), (10, 240), (130, 90)])
def test_a_word_reaches_as_far_as_its_ink(paper: int, ink: int) -> None:
    words = words_of(drawn(paper, ink), seen())
    assert [word.text for word in words] == ["abc", "de"]
    assert edges(words) == [(20, 8, 92, 44), (120, 10, 166, 36)]
    assert [word.confidence for word in words] == pytest.approx([0.9, 0.8])


def test_ink_of_the_lines_above_and_below_is_none_of_a_word() -> None:
    crop = drawn()
    crop[:1, 20:60] = crop[47:, 130:160] = 20
    assert edges(words_of(crop, seen()))[1] == (120, 10, 166, 36)


def test_the_dot_of_a_letter_is_part_of_it() -> None:
    crop = drawn()
    crop[4:7, 125:130] = 20
    assert edges(words_of(crop, seen()))[1] == (120, 4, 166, 36)


def test_without_white_between_words_they_end_where_the_model_says() -> None:
    crop = drawn()
    crop[34:36, 92:120] = 20
    first, second = edges(words_of(crop, seen()))
    assert first[2] == second[0]
    assert 92 <= first[2] <= 120


def test_where_no_ink_can_be_told_words_have_the_height_of_the_crop() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    flat = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
    for crop in (flat, noise):
        words = words_of(crop, seen())
        assert [word.text for word in words] == ["abc", "de"]
        for word in words:
            left, top, right, bottom = word.parts
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
    assert edges(words_of(flat, seen()))[0][1::2] == (0, HEIGHT)


@pytest.mark.parametrize("text", [" ab ", "   ", "a  b"])
def test_spaces_are_no_words(text: str) -> None:
    spans = tuple((20.0 * at + 10, 20.0 * at + 18) for at in range(len(text)))
    answer = TextAnswer(text, 0.9, tuple(text), (0.9,) * len(text), spans=spans)
    assert [word.text for word in words_of(drawn(), answer)] == text.split()


def test_words_are_there_for_those_who_ask_and_in_the_crop_as_it_was_read() -> None:
    upright, turned = drawn(), np.ascontiguousarray(drawn()[::-1, ::-1])
    answers = [seen(), seen(), seen()._replace(rotation_degrees=180), ModelFailed("no number"), TextAnswer("", 0.0)]
    found = with_words([upright, upright, turned, upright, upright], answers, [True, False, True, True, True])
    assert isinstance(found[0], TextAnswer)
    assert isinstance(found[2], TextAnswer)
    assert edges(list(found[0].words)) == edges(list(found[2].words)) == [(20, 8, 92, 44), (120, 10, 166, 36)]
    assert [found[1], *found[3:]] == [answers[1], *answers[3:]]


def test_the_runs_of_characters_are_known() -> None:
    classes = np.array(["", "a", "b", " "], dtype=np.object_)
    indices = np.array([[0, 1, 1, 0, 1, 2], [2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]])
    confidences = np.full(indices.shape, 0.9)
    paths = ctc.decode(indices, confidences, classes, runs=True)
    assert [path.text for path in paths] == ["aab", "b", ""]
    assert [path.runs for path in paths] == [((1, 2), (4, 4), (5, 5)), ((0, 5),), ()]
    assert [path.runs for path in ctc.decode(indices, confidences, classes)] == [(), (), ()]
