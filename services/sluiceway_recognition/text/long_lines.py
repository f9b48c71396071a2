"""Lines that are longer than a model computes at once: they are read in pieces, cut where there is white.

Squeezed into the greatest width, a line of 3,000 x 40 pixels could not be read any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.text.words import ink_of, widest_white
from sluiceway_recognition.types import Answer, TextAnswer

__all__ = ["LONGEST", "Piece", "divided", "joined"]

# Pieces of a line; what is longer still is squeezed into so many.
LONGEST = 4
# Of the greatest width: how wide a piece is when all are equal, and how far from there white is looked for. Both its
# ends so far out, a piece is still a little narrower than the greatest width.
_EVEN = 0.7
_AROUND = 0.14
# In heights of a line: the least white between words.
_APART = 0.14


class Piece(NamedTuple):
    """A part of a crop: its first column, the pixels, and whether it begins with another word than the one before."""

    begin: int
    pixels: NDArray[np.uint8]
    apart: bool = True


def divided(crop: NDArray[np.uint8], most: int) -> list[Piece]:
    """Cut a crop into pieces of at most so many columns.

    Args:
        crop: uint8 [H, W, 3].
        most: greatest width of a piece.

    Returns:
        Pieces from left to right that are all of the crop; one if it is not longer.
    """
    width = crop.shape[1]
    if width <= most:
        return [Piece(0, crop)]
    count = ceil(width / (_EVEN * most))
    ink = ink_of(crop)
    cuts, apart = [0], [True]
    for number in range(1, count):
        left = right = number * width / count
        if ink is not None:
            columns: NDArray[np.bool_] = np.asarray(ink.any(axis=0))
            left, right = widest_white(columns, left - _AROUND * most, left + _AROUND * most, left)
        cuts.append(round((left + right) / 2))
        apart.append(ink is None or right - left >= _APART * crop.shape[0])
    cuts.append(width)
    return [
        Piece(begin, np.ascontiguousarray(crop[:, begin:end]), new)
        for (begin, end), new in zip(pairwise(cuts), apart, strict=True)
    ]


def joined(pieces: Sequence[Piece], answers: Sequence[Answer | ModelFailed]) -> Answer | ModelFailed:
    """One answer of those for the pieces of a line, with a space between words.

    A line that stands on its head begins with its last piece. Of a line that failed in a piece, all failed.
    """
    if len(answers) == 1:
        return answers[0]
    texts: list[TextAnswer] = []
    for answer in answers:
        if not isinstance(answer, TextAnswer):
            return answer
        texts.append(answer)
    width = sum(piece.pixels.shape[1] for piece in pieces)
    # Short pieces may read as well on their heads: the letters of all decide.
    turned = 2 * sum(len(text.text) for text in texts if text.rotation_degrees) > sum(len(text.text) for text in texts)
    characters: list[str] = []
    confidences: list[float] = []
    words = []
    pairs = list(zip(pieces, texts, strict=True))
    parted = True
    for piece, text in reversed(pairs) if turned else pairs:
        if characters and text.characters and (parted if turned else piece.apart):
            # As sure as what stands around it.
            characters.append(" ")
            confidences.append(min(confidences[-1], text.character_confidences[0]))
        parted = piece.apart
        characters += text.characters
        confidences += text.character_confidences
        own = piece.pixels.shape[1]
        begin = width - piece.begin - own if turned else piece.begin
        for word in text.words:
            left, top, right, bottom = word.parts
            parts = ((begin + left * own) / width, top, (begin + right * own) / width, bottom)
            words.append(word._replace(parts=parts))
    mean = fsum(confidences) / len(confidences) if confidences else 0.0
    return TextAnswer(
        "".join(characters), mean, tuple(characters), tuple(confidences), 180 * turned, words=tuple(words)
    )
