"""What a model's arrays mean, checked: nothing that is not a number ever leaves a worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.text import ctc
from sluiceway_recognition.types import (
    Answer,
    ClassAnswer,
    ClassReading,
    EmbeddingAnswer,
    EmbeddingReading,
    Head,
    Reading,
    TextAnswer,
    TextReading,
)

__all__ = ["answer", "answers_of"]

# Rounding in 16-bit arithmetic takes a sum of exponentials this far over 1; more is a fault of the model.
_OVER_ONE = 0.02
_READINGS: dict[Head, type[Reading]] = {
    Head.TEXT: TextReading,
    Head.CLASSIFY: ClassReading,
    Head.EMBED: EmbeddingReading,
}


def answers_of(
    head: Head,
    arrays: tuple[NDArray[Any], ...],
    classes: NDArray[np.object_],
    top_ks: Sequence[int],
    *,
    convention: ctc.Convention = ctc.CTC,
    spans_over_px: int = 0,
) -> list[Answer | ModelFailed]:
    """Give meaning to what a backend returned for a batch, all crops at once.

    Args:
        head: of the model.
        arrays: see `Backend.launch`.
        classes: str [C], text of each class of a text model, or name of each class of a classifier; may be empty for a
            classifier, whose classes are then named by number.
        top_ks: classes to name, for each crop.
        convention: of a text model.
        spans_over_px: padded width of the crops, where it is wanted at which columns each character was seen.

    Returns:
        An answer for each crop, or what is wrong with it: a value, at any step, read or not, that is no probability; an
        embedding without direction.
    """
    match head:
        case Head.TEXT:
            return _texts_of(arrays[0], arrays[1], classes, convention, spans_over_px)
        case Head.CLASSIFY:
            return _classes_of(arrays[0], classes, top_ks)
        case Head.EMBED:
            return _embeddings_of(arrays[0])
        case _:
            assert_never(head)


def _texts_of(
    indices: NDArray[Any],
    confidences: NDArray[Any],
    classes: NDArray[np.object_],
    convention: ctc.Convention,
    spans_over_px: int,
) -> list[Answer | ModelFailed]:
    # The greatest of C probabilities is above 0: 0 is what a maximum over NaN comes out as.
    valid = ((confidences > 0) & (confidences <= 1 + _OVER_ONE)).all(axis=1)
    paths = ctc.decode(indices, confidences, classes, convention, runs=spans_over_px > 0)
    answers: list[Answer | ModelFailed] = [TextAnswer(*path[:4]) for path in paths]
    if spans_over_px:
        step_px = spans_over_px / indices.shape[1]
        answers = [
            TextAnswer(*path[:4], spans=tuple((first * step_px, (last + 1) * step_px) for first, last in path.runs))
            for path in paths
        ]
    return _without(answers, valid, "the model computed something that is no probability")


def _classes_of(
    probabilities: NDArray[Any], labels: NDArray[np.object_], top_ks: Sequence[int]
) -> list[Answer | ModelFailed]:
    if probabilities.shape[1] == 0 or (len(labels) and len(labels) != probabilities.shape[1]):
        raise ModelFailed(f"the classifier has {probabilities.shape[1]} classes and {len(labels)} labels")
    valid = ((probabilities >= 0) & (probabilities <= 1 + _OVER_ONE)).all(axis=1)
    most = max(top_ks, default=1)
    if most == 1:
        order = probabilities.argmax(axis=1)[:, None]
    else:
        # Stable, so that equal probabilities come in the order of the classes on every machine.
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    best = np.minimum(np.take_along_axis(probabilities, order, axis=1).astype(np.float64), 1.0)
    answers: list[Answer | ModelFailed] = [
        ClassAnswer(
            tuple(
                (number, str(labels[number] if len(labels) else number), value)
                for number, value in zip(numbers[:top_k], values[:top_k], strict=True)
            )
        )
        for numbers, values, top_k in zip(order.tolist(), best.tolist(), top_ks, strict=True)
    ]
    return _without(answers, valid, "the classifier computed something that is no probability")


def _embeddings_of(vectors: NDArray[Any]) -> list[Answer | ModelFailed]:
    # In 64 bits the squares of no float32 overflow.
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    valid = np.isfinite(norms) & (norms > 0)
    scaled = (exact / np.where(valid, norms, 1.0)[:, None]).astype(np.float32)
    answers: list[Answer | ModelFailed] = [EmbeddingAnswer(vector.tobytes()) for vector in scaled]
    return _without(answers, valid, "the embedding has no direction")


def _without(answers: list[Answer | ModelFailed], valid: Any, fault: str) -> list[Answer | ModelFailed]:
    for position in np.flatnonzero(~valid).tolist():
        answers[position] = ModelFailed(fault)
    return answers


def answer(reading: object, head: Head, labels: Sequence[str], *, top_k: int = 1) -> Answer:
    """Check a reading, of a built-in model or of user code, and bring it to the form that is answered.

    Args:
        reading: what the recogniser returned for one crop.
        head: what it must be.
        labels: names of the classes of a classifier; a class beyond them is named by its number.
        top_k: classes to name.

    Raises:
        ModelFailed: another kind of reading, or values that make no sense (not finite, out of range, zero length).
    """
    if not isinstance(reading, _READINGS[head]):
        raise ModelFailed(f"the recogniser returned {type(reading).__name__} for a model of kind {head}")
    if isinstance(reading, TextReading):
        return _text(reading)
    if isinstance(reading, ClassReading):
        probabilities = np.asarray(reading.probabilities, dtype=np.float32).reshape(1, -1)
        return _only(_classes_of(probabilities, np.array(labels, dtype=np.object_), (top_k,)))
    assert isinstance(reading, EmbeddingReading)
    return _only(_embeddings_of(np.asarray(reading.vector, dtype=np.float64).reshape(1, -1)))


def _text(reading: TextReading) -> TextAnswer:
    characters = tuple(reading.text if reading.characters is None else reading.characters)
    confidences = tuple(float(value) for value in reading.character_confidences)
    if len(confidences) != len(characters) or "".join(characters) != reading.text:
        raise ModelFailed("the text has not one confidence for each character")
    if any("\ud800" <= unit <= "\udfff" for unit in reading.text):
        # It would fail its whole request where that is answered, as protobuf's text is UTF-8.
        raise ModelFailed("the text holds half of a surrogate pair, which is no character")
    if not all(0 < value <= 1 + _OVER_ONE for value in confidences):
        raise ModelFailed("a confidence lies outside (0, 1]")
    confidences = tuple(min(value, 1.0) for value in confidences)
    mean = math.fsum(confidences) / len(confidences) if confidences else 0.0
    return TextAnswer(reading.text, mean, characters, confidences)


def _only(answers: Sequence[Answer | ModelFailed]) -> Answer:
    (only,) = answers
    if isinstance(only, ModelFailed):
        raise only
    return only
