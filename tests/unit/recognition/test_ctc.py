"""Best-path decoding."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_recognition import ctc

CLASSES = ("", "a", "b", "🇩🇪", " ")


def decode(indices: list[int], confidences: list[float] | None = None) -> ctc.TextReading:
    values = confidences or [0.5] * len(indices)
    return ctc.decode(np.array(indices, dtype=np.int32), np.array(values, dtype=np.float32), CLASSES)


def test_repeats_merge_and_blanks_part_them() -> None:
    assert decode([1, 1, 0, 1, 2, 2]).text == "aab"
    assert decode([0, 0]).text == ""
    assert decode([]).text == ""


def test_a_character_has_the_confidence_of_its_first_step() -> None:
    reading = decode([0, 1, 1, 0, 2], [0.9, 0.5, 1.0, 0.9, 0.25])
    assert reading.character_confidences == (0.5, 0.25)


def test_a_character_may_have_several_code_points() -> None:
    reading = decode([3, 4, 1])
    assert reading.text == "🇩🇪 a"
    assert reading.characters == ("🇩🇪", " ", "a")


@given(st.lists(st.integers(0, 4), max_size=40))
def test_it_is_the_plain_definition(indices: list[int]) -> None:
    expected = "".join(CLASSES[index] for index, _ in groupby(indices) if index)
    reading = decode(indices)
    assert reading.text == expected
    assert len(reading.character_confidences) == len(reading.characters or ())
