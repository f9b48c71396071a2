"""What a figure is worth: intervals by drawing pictures, and in them words, again and again. Pure; the same each time.

A picture that fails as a whole (turned the wrong way, say) takes all its words with it, so pictures are drawn first and
then the words of each: an interval of words alone would be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.matching import Tally

__all__ = ["Interval", "difference", "f_score", "interval"]

DRAWS = 2000
SEED = 18
# 95%.
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


def f_score(tallies: Sequence[Tally]) -> float:
    """Harmonic mean of precision and recall of all words together; 1 where nothing is written and nothing was read."""
    counts = [pair for found in tallies for pair in found.values()]
    written, read = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    return 2 * sum(map(min, counts)) / (written + read) if written + read else 1.0


def interval(tallies: Sequence[Tally]) -> Interval:
    """F of the words of some pictures.

    Args:
        tallies: of each picture.
    """
    low, high = np.percentile(_drawn([[found] for found in tallies])[0], [LOW, HIGH])
    return Interval(f_score(tallies), float(low), float(high))


def difference(ours: Sequence[Tally], theirs: Sequence[Tally]) -> Interval:
    """F of ours less F of theirs, with the same pictures and words drawn for both.

    Args:
        ours: of each picture.
        theirs: of the same pictures, in that order.
    """
    drawn = _drawn([list(pair) for pair in zip(ours, theirs, strict=True)])
    low, high = np.percentile(drawn[0] - drawn[1], [LOW, HIGH])
    return Interval(f_score(ours) - f_score(theirs), float(low), float(high))


def _drawn(pictures: Sequence[Sequence[Tally]]) -> NDArray[np.float64]:
    """F by reader and draw, [readers, DRAWS].

    Args:
        pictures: of each picture, what each reader made of it.
    """
    random = np.random.default_rng(SEED)
    times = random.multinomial(len(pictures), [1 / len(pictures)] * len(pictures), size=DRAWS)
    sums: NDArray[np.float64] = np.zeros((DRAWS, 3 * len(pictures[0])))
    for number, readers in enumerate(pictures):
        words = list(dict.fromkeys(word for found in readers for word in found))
        rows = np.array(
            [[figure for found in readers for figure in _figures(found, word)] for word in words], np.float64
        ).reshape(len(words), 3 * len(readers))
        # As often as the picture was drawn, in the mean.
        weights = random.poisson(times[:, number, None], (DRAWS, len(words)))
        sums += weights @ rows
    written, read, common = (sums[:, part::3].T for part in range(3))
    total = written + read
    return np.where(total > 0, 2 * common / np.maximum(total, 1), 1.0)


def _figures(found: Tally, word: str) -> tuple[int, int, int]:
    written, read = found.get(word, (0, 0))
    return written, read, min(written, read)
