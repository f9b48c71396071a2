"""Greedy CTC decoding (Graves et al. 2006, best path) of a whole batch: merge repeats, then drop blanks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Path", "decode"]

BLANK_CLASS = 0


class Path(NamedTuple):
    """What one crop says.

    Attributes:
        text: the characters, joined.
        confidence: mean of those of the characters, 0 without any.
        characters: one entry each; some have several code points.
        confidences: of the first step of each character's run, as PP-OCR counts it; at most 1.
    """

    text: str
    confidence: float
    characters: tuple[str, ...]
    confidences: tuple[float, ...]


def decode(indices: NDArray[Any], confidences: NDArray[Any], classes: NDArray[np.object_]) -> list[Path]:
    """Read the best path of each crop.

    Args:
        indices: integer [N, T], the most probable class at each step.
        confidences: float [N, T], its probability; rounding may have taken it a little over 1.
        classes: str [C], text of each class; the first is the blank.

    Returns:
        N paths, in order.
    """
    kept = indices != BLANK_CLASS
    kept[:, 1:] &= indices[:, 1:] != indices[:, :-1]
    rows, steps = np.nonzero(kept)
    # In 64 bits, as Python's own numbers are.
    values = np.minimum(confidences[rows, steps].astype(np.float64), 1.0)
    counts = np.bincount(rows, minlength=len(indices))
    means = (np.bincount(rows, weights=values, minlength=len(indices)) / np.maximum(counts, 1)).tolist()
    ends = np.cumsum(counts).tolist()
    # One conversion for all characters of the batch; what follows for each crop is slicing.
    letters, numbers = classes[indices[rows, steps]].tolist(), values.tolist()
    paths, begin = [], 0
    for end, mean in zip(ends, means, strict=True):
        characters = tuple(letters[begin:end])
        paths.append(Path("".join(characters), mean, characters, tuple(numbers[begin:end])))
        begin = end
    return paths
