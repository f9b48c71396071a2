"""Pictures with known text, for OCR servers: drawn as `make accuracy` draws them, and scored by the same rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from benchmarks.accuracy.__main__ import drawn
from benchmarks.accuracy.bootstrap import f_score
from benchmarks.accuracy.matching import tally
from benchmarks.accuracy.picture import Stored
from benchmarks.accuracy.words import words_of

__all__ = ["pictures", "word_f1"]

# Of each class, so many: pages, papers, screens and signs, none of which asks for more than these engines know.
CHOSEN = {"page-10pt-1col": 1, "receipts": 2, "forms": 1, "screens-light": 1, "signs": 5, "shelf-labels": 2}


@cache
def pictures() -> list[Stored]:
    """The pictures, drawn where they are missing."""
    found = drawn(list(CHOSEN))
    return [picture for kind, count in CHOSEN.items() for picture in found[kind][:count]]


def word_f1(stored: Sequence[Stored], texts: Sequence[Sequence[str]]) -> float:
    """F of the words of all pictures together.

    Args:
        stored: the pictures.
        texts: what was read in each, in that order.
    """
    tallies = [
        tally(
            [word for line in picture.lines for word in words_of(line)],
            [word for text in found for word in words_of(text)],
        )
        for picture, found in zip(stored, texts, strict=True)
    ]
    return f_score(tallies)
