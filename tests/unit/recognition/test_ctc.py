"""Best-path decoding."""

from __future__ import annotations

from itertools import groupby
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_recognition.text import ctc

CLASSES = ("", "a", "b", "🇩🇪", " ")


def decode(indices: list[int], confidences: list[float] | None = None) -> ctc.Path:
    return decode_all([indices], [confidences or [0.5] * len(indices)])[0]


def decode_all(indices: list[list[int]], confidences: list[list[float]]) -> list[ctc.Path]:
    return ctc.decode(
        np.array(indices, dtype=np.int32), np.array(confidences, dtype=np.float32), np.array(CLASSES, dtype=object)
    )


def test_repeats_merge_and_blanks_part_them() -> None:
    assert decode([1, 1, 0, 1, 2, 2]).text == "aab"
    assert decode([0, 0]) == ("", 0.0, (), (), ())


def test_the_blank_may_be_any_class_or_end_the_text() -> None:
    steps, sure = np.array([[1, 1, 4, 1, 2, 0], [4, 1, 1, 1, 1, 1]]), np.full((2, 6), 0.5, np.float32)
    classes = np.array(["z", "a", "b", "c", ""], dtype=object)
    assert [path.text for path in ctc.decode(steps, sure, classes, ctc.Convention(blank=4))] == ["aabz", "a"]
    assert [path.text for path in ctc.decode(steps, sure, classes, ctc.Convention(4, ends=True))] == ["aa", ""]


def test_a_character_has_the_confidence_of_its_first_step() -> None:
    path = decode([0, 1, 1, 0, 2], [0.9, 0.5, 1.0, 0.9, 0.25])
    assert path.confidences == (0.5, 0.25)
    assert path.confidence == 0.375


def test_rounding_above_one_is_cut() -> None:
    assert decode([1, 0], [1.004, 0.9]).confidences == (1.0,)


def test_a_character_may_have_several_code_points() -> None:
    path = decode([3, 4, 1])
    assert path.text == "🇩🇪 a"
    assert path.characters == ("🇩🇪", " ", "a")


@given(st.lists(st.lists(st.integers(0, 4), min_size=12, max_size=12), min_size=1, max_size=9), st.randoms())
def test_it_is_the_plain_definition_for_each_crop_of_a_batch(indices: list[list[int]], chance: Random) -> None:
    confidences = [[chance.choice([0.25, 0.5, 0.75, 1.0]) for _ in row] for row in indices]
    for path, row, values in zip(decode_all(indices, confidences), indices, confidences, strict=True):
        runs = [
            (index, [step for _, step in steps]) for index, steps in groupby(zip(row, range(12), strict=True), _key)
        ]
        kept = [(CLASSES[index], values[steps[0]]) for index, steps in runs if index]
        assert path.characters == tuple(character for character, _ in kept)
        assert path.text == "".join(path.characters)
        assert path.confidences == tuple(value for _, value in kept)
        assert path.confidence == (sum(path.confidences) / len(kept) if kept else 0)


def _key(pair: tuple[int, int]) -> int:
    return pair[0]
