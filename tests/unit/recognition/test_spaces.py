"""Spaces that a model left out, in drawn lines of bars that stand for letters."""

from __future__ import annotations

import numpy as np
import pytest
from sluiceway_recognition.text.spaces import SPACED_PX, with_spaces
from sluiceway_recognition.types import TextAnswer
from sluiceway_runtime.errors import ModelFailed

LETTER, GAP, SPACE = 12, 4, 16


def line(words: list[str], *, space: int = SPACE, gap: int = GAP, wide: int = 0) -> tuple[np.ndarray, list[tuple]]:
    """Bars, and where each is; `wide` is the white before the last word."""
    spans, x = [], 10.0
    for number, word in enumerate(words):
        if number:
            x += (wide if wide and number == len(words) - 1 else space) - gap
        for _ in word:
            spans.append((x, x + LETTER))
            x += LETTER + gap
    crop = np.full((48, int(x) + 20, 3), 240, np.uint8)
    for begin, end in spans:
        crop[14:36, int(begin) : int(end)] = 30
    return crop, spans


def read(text: str, spans: list[tuple[float, float]], *, rotation_degrees: int = 0) -> TextAnswer:
    """What a model says that saw each letter where it is."""
    left = iter(spans)
    characters = tuple(text)
    seen = tuple((0.0, 0.0) if character == " " else next(left) for character in characters)
    return TextAnswer(text, 0.9, characters, (0.9,) * len(characters), rotation_degrees, spans=seen)


def test_a_space_that_is_as_wide_as_the_others_is_put_in() -> None:
    crop, spans = line(["paid", "579.18", "18.04.2019", "by", "noon.", "Even"])
    (found,) = with_spaces([crop], [read("paid 579.1818.04.2019 by noon.Even", spans)])
    assert isinstance(found, TextAnswer)
    assert found.text == "paid 579.18 18.04.2019 by noon. Even"
    assert len(found.characters) == len(found.character_confidences) == len(found.spans) == len(found.text)
    begin, end = found.spans[found.text.index(" 18.04")]
    assert (begin, end) == (spans[9][1], spans[10][0])
    assert found.confidence == pytest.approx(0.9)


def test_a_line_on_its_head_is_looked_at_as_it_was_read() -> None:
    crop, spans = line(["one", "two", "three", "four"])
    (found,) = with_spaces([crop[::-1, ::-1].copy()], [read("one two threefour", spans, rotation_degrees=180)])
    assert isinstance(found, TextAnswer)
    assert found.text == "one two three four"


@pytest.mark.parametrize(
    ("words", "text", "options"),
    [
        (["one", "two", "three", "x"], "one two threex", {"wide": GAP}),
        (["one", "two", "three", "x"], "one two threex", {"wide": 10}),
        # Letters that are set wide.
        (["o", "n", "e", "two", "to"], "one two to", {"gap": 12, "space": 18}),
        # Only one space shows how wide they are.
        (["one", "two", "x"], "one twox", {}),
        # A 1 is narrow, and a stop stands at its word.
        (["one", "two", "three", "1"], "one two three1", {"wide": 15}),
        (["one", "two", "three", "."], "one two three.", {"wide": 20}),
        # Within a word.
        (["one", "two", "three", "x"], "one two threex", {"wide": 15}),
        # Chinese has no spaces.
        (["one", "two", "月", "日"], "one two 月日", {}),
    ],
)
def test_other_lines_stay_as_they_were_read(words: list[str], text: str, options: dict[str, int]) -> None:
    crop, spans = line(words, **options)
    answer = read(text, spans)
    assert with_spaces([crop], [answer]) == [answer]


def test_what_cannot_be_looked_at_stays() -> None:
    crop, spans = line(["one", "two", "three", "four"])
    failed, plain = ModelFailed("no"), read("one two threefour", spans)._replace(spans=())
    pale = read("one two threefour", spans)
    answers = [failed, plain, pale]
    assert with_spaces([crop, crop, np.full_like(crop, 200)], list(answers)) == answers


@pytest.mark.parametrize(("letter", "columns"), [(7, SPACE + 4), (6, -LETTER - GAP)])
def test_a_letter_that_was_seen_beside_its_place_divides_no_word(letter: int, columns: int) -> None:
    """The last one of "still" right of the space behind it; the one before left of the white before it."""
    crop, spans = line(["has", "still", "yellow", "doors"], gap=8 if columns < 0 else GAP)
    if columns < 0:
        # As wide as a space, where a letter is thin.
        crop[:, int(spans[letter][0]) : int(spans[letter][1])] = 240
    begin, end = spans[letter]
    spans[letter] = (begin + columns, end + columns)
    answer = read("has still yellow doors", spans)
    assert with_spaces([crop], [answer]) == [answer]


def test_numbers_are_parted_though_their_digits_touch() -> None:
    crop, spans = line(["one", "two", "32181", "64105"])
    crop[20:30, int(spans[-5][0]) : int(spans[-4][1])] = 30
    (found,) = with_spaces([crop], [read("one two 3218164105", spans)])
    assert isinstance(found, TextAnswer)
    assert found.text == "one two 32181 64105"


def test_spaces_without_white_show_no_width() -> None:
    crop, spans = line(["threes", "fours", "fives", "sixes"], space=0, wide=SPACE)
    assert crop.shape[1] >= SPACED_PX
    answer = read("threes fours fivessixes", spans)
    assert with_spaces([crop], [answer]) == [answer]


def test_a_narrow_line_stays_as_it_is_whatever_stands_beside_it() -> None:
    """Alone it is not looked at, for it has hardly three words: so neither beside others."""
    narrow, spans = line(["aa", "bb", "cc", "dd"], space=12, gap=2)
    lacking = read("aa bb ccdd", spans)
    wide, wide_spans = line(["one", "two", "three", "four"])
    beside = read("one two threefour", wide_spans)
    assert narrow.shape[1] < SPACED_PX <= wide.shape[1]
    found = with_spaces([narrow, wide], [lacking, beside])
    assert found[0] == lacking
    assert found[1] != beside
    # It is its width alone that keeps it as it is.
    padded = np.concatenate((narrow, np.full((48, SPACED_PX, 3), 240, np.uint8)), axis=1)
    assert with_spaces([padded], [lacking]) != [lacking]
