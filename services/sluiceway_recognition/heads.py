"""What a model's arrays mean, checked: nothing that is not a number ever leaves a worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition import ctc
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

__all__ = ["answer", "reading_of"]

# Rounding in 16-bit arithmetic takes a sum of exponentials this far over 1; more is a fault of the model.
_OVER_ONE = 0.02
_READINGS: dict[Head, type[Reading]] = {
    Head.TEXT: TextReading,
    Head.CLASSIFY: ClassReading,
    Head.EMBED: EmbeddingReading,
}


def reading_of(head: Head, arrays: tuple[NDArray[Any], ...], labels: Sequence[str]) -> Reading:
    """Give meaning to what a backend returned for one crop.

    Args:
        head: of the model.
        arrays: text: int [T] classes and float [T] confidences; classify: float [C]; embed: float [D].
        labels: text of each class of a text model; not used by the others.

    Raises:
        ModelFailed: a confidence of a text model is no probability, at any step, read or not.
    """
    match head:
        case Head.TEXT:
            indices, confidences = arrays
            # The greatest of C probabilities is above 0: 0 is what a maximum over NaN comes out as.
            if not np.all((confidences > 0) & (confidences <= 1 + _OVER_ONE)):
                raise ModelFailed("the model computed something that is no probability")
            return ctc.decode(indices, confidences, labels)
        case Head.CLASSIFY:
            return ClassReading(arrays[0])
        case Head.EMBED:
            return EmbeddingReading(arrays[0])
        case _:
            assert_never(head)


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
        return _classes(reading, labels, top_k)
    assert isinstance(reading, EmbeddingReading)
    return _embedding(reading)


def _text(reading: TextReading) -> TextAnswer:
    characters = tuple(reading.text if reading.characters is None else reading.characters)
    confidences = tuple(float(value) for value in reading.character_confidences)
    if len(confidences) != len(characters) or "".join(characters) != reading.text:
        raise ModelFailed("the text has not one confidence for each character")
    if not all(0 < value <= 1 + _OVER_ONE for value in confidences):
        raise ModelFailed("a confidence lies outside (0, 1]")
    confidences = tuple(min(value, 1.0) for value in confidences)
    mean = math.fsum(confidences) / len(confidences) if confidences else 0.0
    return TextAnswer(reading.text, mean, characters, confidences)


def _classes(reading: ClassReading, labels: Sequence[str], top_k: int) -> ClassAnswer:
    probabilities = np.asarray(reading.probabilities, dtype=np.float32).reshape(-1)
    valid = probabilities.size > 0 and np.all((probabilities >= 0) & (probabilities <= 1 + _OVER_ONE))
    if not valid:
        raise ModelFailed("the classifier computed something that is no probability")
    if labels and len(labels) != probabilities.size:
        raise ModelFailed(f"the classifier has {probabilities.size} classes and {len(labels)} labels")
    # Stable, so that equal probabilities come in the order of the classes on every machine.
    order = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return ClassAnswer(
        tuple(
            (index, labels[index] if labels else str(index), min(float(probabilities[index]), 1.0)) for index in order
        )
    )


def _embedding(reading: EmbeddingReading) -> EmbeddingAnswer:
    vector = np.asarray(reading.vector, dtype=np.float64).reshape(-1)
    # In 64 bits the squares of no float32 overflow.
    norm = float(np.linalg.norm(vector)) if vector.size else 0.0
    if not (math.isfinite(norm) and norm > 0):
        raise ModelFailed("the embedding has no direction")
    return EmbeddingAnswer((vector / norm).astype(np.float32).tobytes())
