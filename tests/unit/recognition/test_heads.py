"""Readings, checked."""

from __future__ import annotations

import numpy as np
import pytest
from sluiceway_recognition.types import (
    ClassAnswer,
    ClassReading,
    EmbeddingAnswer,
    EmbeddingReading,
    Head,
    TextAnswer,
    TextReading,
)
from sluiceway_recognition.worker.heads import answer, answers_of
from sluiceway_runtime.errors import ModelFailed

NAN = float("nan")


def test_text_has_the_mean_confidence_of_its_characters() -> None:
    checked = answer(TextReading("ab", (0.5, 1.0)), Head.TEXT, ())
    assert (checked.text, checked.confidence, checked.characters) == ("ab", 0.75, ("a", "b"))
    assert answer(TextReading(""), Head.TEXT, ()).confidence == 0


def test_rounding_above_one_is_cut() -> None:
    assert answer(TextReading("a", (1.004,)), Head.TEXT, ()).confidence == 1


@pytest.mark.parametrize(
    "reading",
    [
        TextReading("ab", (0.5,)),
        TextReading("ab", (0.5, 0.5), ("a", "c")),
        TextReading("a", (NAN,)),
        TextReading("a", (0.0,)),
        TextReading("a", (1.5,)),
        ClassReading((1.0,)),
        None,
        "a",
    ],
)
def test_text_that_makes_no_sense_fails(reading: object) -> None:
    with pytest.raises(ModelFailed):
        answer(reading, Head.TEXT, ())


def test_classes_come_most_probable_first_and_equal_ones_by_number() -> None:
    reading = ClassReading(np.array([0.1, 0.3, 0.3, 0.3], dtype=np.float32))
    checked = answer(reading, Head.CLASSIFY, ("a", "b", "c", "d"), top_k=3)
    assert isinstance(checked, ClassAnswer)
    assert [(index, name) for index, name, _ in checked.labels] == [(1, "b"), (2, "c"), (3, "d")]
    assert len(answer(reading, Head.CLASSIFY, (), top_k=1000).labels) == 4
    assert answer(reading, Head.CLASSIFY, ()).labels[0][:2] == (1, "1")


@pytest.mark.parametrize("values", [[], [NAN, 1.0], [-0.1, 0.5], [1.5, 0.0], [float("inf"), 0.0], [0.1, 0.2, 0.7]])
def test_classes_that_make_no_sense_fail(values: list[float]) -> None:
    with pytest.raises(ModelFailed):
        answer(ClassReading(values), Head.CLASSIFY, ("one", "two"))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_an_embedding_has_length_one(scale: float) -> None:
    vector = np.array([3.0, 0.0, -4.0], dtype=np.float32) * np.float32(scale)
    values = np.frombuffer(answer(EmbeddingReading(vector), Head.EMBED, ()).vector, dtype=np.float32)
    assert values == pytest.approx([0.6, 0.0, -0.8])


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [NAN, 1.0], [float("inf"), 1.0]])
def test_an_embedding_without_direction_fails(values: list[float]) -> None:
    with pytest.raises(ModelFailed):
        answer(EmbeddingReading(values), Head.EMBED, ())


NAMES = np.array(["", "a", " "], dtype=object)


@pytest.mark.parametrize("bad", [NAN, 0.0, -1.0, 1.5])
def test_a_step_that_is_no_probability_fails_its_crop_even_when_it_is_blank(bad: float) -> None:
    indices, confidences = np.array([[1, 0], [1, 0], [0, 1]]), np.array([[0.9, 0.9], [0.9, bad], [0.9, 0.5]])
    first, second, third = answers_of(Head.TEXT, (indices, confidences), NAMES, (1, 1, 1))
    assert isinstance(second, ModelFailed)
    assert first == TextAnswer("a", 0.9, ("a",), (0.9,))
    assert third == TextAnswer("a", 0.5, ("a",), (0.5,))


def test_a_batch_of_classes_is_answered_as_single_readings_are() -> None:
    rows = np.array([[0.1, 0.3, 0.3, 0.3], [0.7, 0.1, 0.1, 0.1], [NAN, 0, 0, 1], [0, 0, 1.01, 0]], dtype=np.float32)
    labels = ("a", "b", "c", "d")
    for top_ks in ((1, 1, 1, 1), (3, 1, 2, 1000)):
        answers = answers_of(Head.CLASSIFY, (rows,), np.array(labels, dtype=object), top_ks)
        assert isinstance(answers[2], ModelFailed)
        for position in (0, 1, 3):
            one = answer(ClassReading(rows[position]), Head.CLASSIFY, labels, top_k=top_ks[position])
            assert answers[position] == one
    unnamed = answers_of(Head.CLASSIFY, (rows[:1],), np.array([], dtype=object), (1,))
    assert unnamed == [ClassAnswer(((1, "1", pytest.approx(0.3)),))]


def test_a_batch_of_embeddings_is_answered_as_single_readings_are() -> None:
    rows = np.array([[3, 0, -4], [0, 0, 0], [1e30, 0, 0], [NAN, 1, 1]], dtype=np.float32)
    answers = answers_of(Head.EMBED, (rows,), NAMES, (1,) * 4)
    assert [type(one) for one in answers] == [EmbeddingAnswer, ModelFailed, EmbeddingAnswer, ModelFailed]
    assert answers[0] == answer(EmbeddingReading(rows[0]), Head.EMBED, ())
