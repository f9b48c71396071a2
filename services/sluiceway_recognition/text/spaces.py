"""Spaces that a model of lines left out: put in where there is as much white as at those that it saw.

A line is squeezed or stretched to the model's height, and narrow spaces, behind a stop or between numbers, are what it
loses first: of pages in print of 8 pt all that was read wrongly were words without the space between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed

from sluiceway_recognition.text.upright import as_read
from sluiceway_recognition.types import Answer, TextAnswer

__all__ = ["SPACED_PX", "with_spaces"]

Crops = Sequence[NDArray[np.uint8]]

# Columns of a crop from which it is worth a look; what is narrower has hardly three words.
SPACED_PX = 256
# A line has to show how wide its spaces are, and how wide the white between its letters is.
_LEAST_SPACES, _LEAST_LETTERS = 2, 4
# Of the usual space of the line: white from which it is one, and from which one divides what could be a word.
_SPACE, _SPACE_IN_WORD = 0.8, 1.0
# Of the usual white, at spaces that were read or between letters: a letter with less on one side, and a space on the
# other, was seen beside its place.
_IN_PLACE = 0.5
# Of the usual white between letters: letters that are set wide are no words.
_WIDE, _WIDE_PX = 1.6, 2.0
# Of the greatest contrast within a column: below it there is no ink. And of the height: rows at the edges, into which
# letters of other lines reach.
_INK, _EDGE = 0.25, 0.1
_LEAST_CONTRAST = 16
# Scripts from here on (Hebrew, Arabic, Indian ones, Chinese, ...) have other spaces, or none.
_FIRST_OTHER = "\u0590"
# No space stands behind these, and before those.
_OPENING, _CLOSING = frozenset("([{\u00bf\u00a1"), frozenset(")]},.;:!?%\u00b0")


def with_spaces(crops: Crops, answers: list[Answer | ModelFailed]) -> list[Answer | ModelFailed]:
    """Put spaces into the texts of crops that are wide enough, whatever the others are: no answer hangs on them.

    Args:
        crops: uint8 [H, w_i, 3], as they came.
        answers: for each; those of texts that are to be looked at with the spans of their characters. One that says
            that its text is turned was read in the crop turned back, see `as_read`.
    """
    return [
        _spaced(as_read(crop, answer.rotation_degrees), answer)
        if crop.shape[1] >= SPACED_PX
        and isinstance(answer, TextAnswer)
        and answer.spans
        and answer.text.count(" ") >= _LEAST_SPACES
        else answer
        for crop, answer in zip(crops, answers, strict=True)
    ]


def _spaced(crop: NDArray[np.uint8], answer: TextAnswer) -> TextAnswer:
    characters = answer.characters
    places = [at for at, character in enumerate(characters) if not character.isspace()]
    if len(places) < 2:
        return answer
    white = _white_between(crop, [sum(answer.spans[at]) / 2 for at in places])
    if white is None:
        return answer
    apart: NDArray[np.bool_] = np.diff(places) > 1
    if np.count_nonzero(apart) < _LEAST_SPACES or np.count_nonzero(~apart) < _LEAST_LETTERS:
        return answer
    space = float(np.median(white[apart]))
    if not space:
        # Half of the spaces that were read have no white: the line does not show how wide they are.
        return answer
    between = float(np.median(white[~apart]))
    least = max(_SPACE * space, _WIDE * between + _WIDE_PX)
    beside = np.pad(white >= _IN_PLACE * np.where(apart, space, between), 1, constant_values=True)
    in_place = beside[:-2] & beside[2:]
    missing = {
        at
        for pair in np.flatnonzero(~apart & (white >= least)).tolist()
        if _may_be_apart(
            characters[(at := places[pair + 1]) - 1],
            characters[at],
            float(white[pair]) / space,
            in_place=bool(in_place[pair]),
        )
    }
    return _with_spaces_before(missing, answer) if missing else answer


def _may_be_apart(before: str, after: str, spaces: float, *, in_place: bool) -> bool:
    """Whether there may be a space between two characters, with white of so many usual spaces between them.

    Args:
        before: that is left of it.
        after: and right.
        spaces: how wide the white is.
        in_place: whether there is white on the other sides of both as well.
    """
    if max(before, after) >= _FIRST_OTHER or before in _OPENING or after in _CLOSING:
        return False
    # Within a word a faint letter may look like white, and around a 1 there is more white than around others.
    word = before.isalpha() and after.islower()
    if (word or "1" in (before, after)) and spaces < _SPACE_IN_WORD:
        return False
    return in_place or not word


def _with_spaces_before(places: set[int], answer: TextAnswer) -> TextAnswer:
    characters: list[str] = []
    confidences: list[float] = []
    spans: list[tuple[float, float]] = []
    for at, character in enumerate(answer.characters):
        if at in places:
            characters.append(" ")
            # As sure as what stands around it; the confidence of all stays that of what was read.
            confidences.append(min(answer.character_confidences[at - 1 : at + 1]))
            spans.append((answer.spans[at - 1][1], answer.spans[at][0]))
        characters.append(character)
        confidences.append(answer.character_confidences[at])
        spans.append(answer.spans[at])
    return answer._replace(
        text="".join(characters),
        characters=tuple(characters),
        character_confidences=tuple(confidences),
        spans=tuple(spans),
    )


def _white_between(crop: NDArray[np.uint8], middles: Sequence[float]) -> NDArray[np.float64] | None:
    """Columns of the widest white between each two places in a line; None where no ink can be told from paper."""
    height = crop.shape[0]
    edge = round(height * _EDGE)
    # One colour of three tells ink from paper in all but contrived pictures, and takes a third of the time.
    rows = crop[edge : height - edge, :, 1]
    contrast = rows.max(axis=0) - rows.min(axis=0)
    full = int(contrast.max())
    if full < _LEAST_CONTRAST:
        return None
    ink = np.zeros(len(contrast) + 2, np.int8)
    ink[1:-1] = contrast > _INK * full
    steps = np.diff(ink)
    # White between ink: what is before the first letter and behind the last is none, wherever the model saw those.
    begins, ends = np.flatnonzero(steps < 0)[:-1], np.flatnonzero(steps > 0)[1:]
    pairs = np.searchsorted(middles, (begins + ends) / 2) - 1
    inside = (pairs >= 0) & (pairs < len(middles) - 1)
    white = np.zeros(len(middles) - 1)
    np.maximum.at(white, pairs[inside], (ends - begins)[inside])
    return white
