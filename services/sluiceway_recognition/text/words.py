"""Where the words of a text lie in its crop: by the columns at which the model saw each character, and by the ink.

The steps of a CTC model say between which characters a word ends, to about half of a character; how far its letters
reach, left and right as well as up and down, the pixels say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.text.upright import as_read
from sluiceway_recognition.types import Answer, TextAnswer, WordAnswer

__all__ = ["ink_of", "widest_white", "with_words", "words_of"]

# Of the way from paper to ink: what is darker (or, on dark paper, lighter) counts as ink.
_INK = 0.4
# Share of the pixels below the usual distance of ink from paper: of those of a line a tenth and more are ink.
_INKY = 0.97
# Grey values from paper to ink below which there is nothing to be seen.
_LEAST_CONTRAST = 16
# Of a crop. Where more is ink, it is a photograph, and pixels say nothing of letters.
_MOST_INK = 0.55
# In heights of a crop: how far the first and the last letter may reach beyond where the model saw them, and how much
# white may lie within a letter (below the dot of an i).
_REACH = 0.7
_WITHIN = 0.16

_MEAN_OF_COLOURS = np.full((1, 3), 1 / 3, np.float32)

Crops = Sequence[NDArray[np.uint8]]
Parts = tuple[float, float, float, float]


class _Span(NamedTuple):
    """A word as the model saw it: its characters, and the columns between the middles of its first and last one."""

    text: str
    confidence: float
    begin: float
    end: float


def with_words(crops: Crops, answers: list[Answer | ModelFailed], wanted: Sequence[bool]) -> list[Answer | ModelFailed]:
    """Add words to texts.

    Args:
        crops: uint8 [H, w_i, 3], as they came.
        answers: for each; those of texts with the spans of their characters. One that says that its text is turned was
            read in the crop turned back, see `as_read`.
        wanted: for which.
    """
    found: list[Answer | ModelFailed] = []
    for crop, answer, yes in zip(crops, answers, wanted, strict=True):
        if not yes or not isinstance(answer, TextAnswer) or not answer.spans:
            found.append(answer)
            continue
        pixels = as_read(crop, answer.rotation_degrees)
        found.append(answer._replace(words=tuple(words_of(pixels, answer))))
    return found


def words_of(crop: NDArray[np.uint8], answer: TextAnswer) -> list[WordAnswer]:
    """The words of a text.

    Args:
        crop: uint8 [H, W, 3] as it was read.
        answer: with the spans of its characters.
    """
    spans = _split(answer)
    if not spans:
        return []
    height, width = crop.shape[:2]
    ink = ink_of(crop)
    columns: NDArray[np.bool_] | None = None if ink is None else np.asarray(ink.any(axis=0))
    edges = _edges(spans, width, height, columns)
    words = []
    for span, (left, right) in zip(spans, edges, strict=True):
        top, bottom = (0, height) if ink is None else _rows(ink[:, left:right])
        parts = (left / width, top / height, right / width, bottom / height)
        words.append(WordAnswer(span.text, span.confidence, parts))
    return words


def _split(answer: TextAnswer) -> list[_Span]:
    """Characters between spaces."""
    spans: list[_Span] = []
    begin = 0
    characters = answer.characters
    for at in range(len(characters) + 1):
        if at < len(characters) and not characters[at].isspace():
            continue
        if at > begin:
            confidences = answer.character_confidences[begin:at]
            first, last = answer.spans[begin], answer.spans[at - 1]
            spans.append(
                _Span("".join(characters[begin:at]), sum(confidences) / len(confidences), sum(first) / 2, sum(last) / 2)
            )
        begin = at + 1
    return spans


def ink_of(crop: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Which pixels are ink; None where none can be told from paper."""
    grey = cv2.transform(crop, _MEAN_OF_COLOURS)
    # Of whole grey values a histogram says all that sorting pixels would, in a tenth of the time.
    paper = _value_at(_histogram(grey), 0.5)
    distance = cv2.absdiff(grey, np.array([paper], np.float64))
    distances = _histogram(distance)
    full = _value_at(distances, _INKY)
    if full < _LEAST_CONTRAST:
        return None
    least = int(_INK * full) + 1
    if distances[least:].sum() > _MOST_INK * distance.size:
        return None
    return np.asarray(distance >= least)


def _histogram(values: NDArray[Any]) -> NDArray[Any]:
    """How many there are of each grey value, [256]."""
    return np.asarray(cv2.calcHist([values], [0], None, [256], [0, 256])).ravel()


def _value_at(histogram: NDArray[Any], share: float) -> int:
    """The value that this share of all lies below or at."""
    return int(np.searchsorted(histogram.cumsum(), share * histogram.sum()))


def _edges(spans: Sequence[_Span], width: int, height: int, columns: NDArray[np.bool_] | None) -> list[tuple[int, int]]:
    """Left and right edge of each word, whole pixels; at least one wide."""
    cuts: list[tuple[float, float]] = []
    for before, after in pairwise(spans):
        middle = (before.end + after.begin) / 2
        cuts.append((middle, middle) if columns is None else widest_white(columns, before.end, after.begin, middle))
    reach = _REACH * height
    lefts = [max(0.0, spans[0].begin - reach), *(right for _, right in cuts)]
    rights = [*(left for left, _ in cuts), min(float(width), spans[-1].end + reach)]
    if columns is not None:
        lefts[0] = _first_ink(columns, lefts[0], spans[0].begin, height)
        rights[-1] = width - _first_ink(columns[::-1], width - rights[-1], width - spans[-1].end, height)
    edges = []
    for left, right in zip(lefts, rights, strict=True):
        begin = min(max(0, round(left)), width - 1)
        edges.append((begin, min(width, max(begin + 1, round(right)))))
    return edges


def widest_white(columns: NDArray[np.bool_], begin: float, end: float, middle: float) -> tuple[float, float]:
    """The widest white between two columns; where there is none, the middle."""
    first, last = max(0, int(begin)), min(len(columns), int(end) + 1)
    widest, found, run = 0, (middle, middle), 0
    for at in range(first, last + 1):
        if at < last and not columns[at]:
            run += 1
            continue
        if run > widest:
            widest, found = run, (float(at - run), float(at))
        run = 0
    return found


def _first_ink(columns: NDArray[np.bool_], least: float, seen: float, height: int) -> float:
    """Where the ink of a letter begins: from where it was seen to the left, as far as no white parts it."""
    first, at = int(least), min(len(columns) - 1, max(0, int(seen)))
    begin, white = at, 0
    while at > first and white <= _WITHIN * height:
        at -= 1
        if columns[at]:
            begin, white = at, 0
        else:
            white += 1
    return float(begin)


def _rows(ink: NDArray[np.bool_]) -> tuple[int, int]:
    """First row of a word, and the one behind its last: the rows around the fullest one that no wide white parts."""
    counts: NDArray[Any] = ink.sum(axis=1)
    height = len(counts)
    if not counts.any():
        return 0, height
    at = int(counts.argmax())
    filled = (counts > 0).tolist()
    most = _WITHIN * height
    top = bottom = at
    white = 0
    for row in range(at - 1, -1, -1):
        white = 0 if filled[row] else white + 1
        if white > most:
            break
        top = row if filled[row] else top
    white = 0
    for row in range(at + 1, height):
        white = 0 if filled[row] else white + 1
        if white > most:
            break
        bottom = row if filled[row] else bottom
    return top, bottom + 1
