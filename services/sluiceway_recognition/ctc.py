"""Greedy CTC decoding (Graves et al. 2006, best path): merge repeats, then drop blanks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluiceway_recognition.types import TextReading

__all__ = ["decode"]

BLANK_CLASS = 0


def decode(indices: NDArray[Any], confidences: NDArray[Any], classes: Sequence[str]) -> TextReading:
    """Read one best path.

    Args:
        indices: integer [T], the most probable class at each step.
        confidences: float [T], its probability.
        classes: text of each class; the first is the blank.

    Returns:
        The text; the confidence of a character is that of the first step of its run, as PP-OCR counts it.
    """
    starts = np.empty(indices.shape, dtype=bool)
    starts[:1] = True
    np.not_equal(indices[1:], indices[:-1], out=starts[1:])
    kept = np.flatnonzero(starts & (indices != BLANK_CLASS))
    characters = tuple(classes[index] for index in indices[kept].tolist())
    return TextReading("".join(characters), tuple(confidences[kept].tolist()), characters)
