"""From the most probable class of each step to text, for a whole batch.

Greedy CTC decoding (Graves et al. 2006, best path): merge repeats, then drop blanks. And reading step by step, as
models with attention write: a character each, until the class that ends the text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CTC", "Convention", "Path", "decode"]


class Convention(NamedTuple):
    """How the steps of a model are to be read.

    Attributes:
        blank: the class that is no character.
        ends: the blank ends the text, and repeats are characters of their own; else it parts repeats, which are one.
    """

    blank: int = 0
    ends: bool = False


CTC = Convention()


class Path(NamedTuple):
    """What one crop says.

    Attributes:
        text: the characters, joined.
        confidence: mean of those of the characters, 0 without any.
        characters: one entry each; some have several code points.
        confidences: of the first step of each character's run, as PP-OCR counts it; at most 1.
        runs: first and last step of each character, where they were asked for.
    """

    text: str
    confidence: float
    characters: tuple[str, ...]
    confidences: tuple[float, ...]
    runs: tuple[tuple[int, int], ...] = ()


def decode(
    indices: NDArray[Any],
    confidences: NDArray[Any],
    classes: NDArray[np.object_],
    convention: Convention = CTC,
    *,
    runs: bool = False,
) -> list[Path]:
    """Read the best path of each crop.

    Args:
        indices: integer [N, T], the most probable class at each step.
        confidences: float [N, T], its probability; rounding may have taken it a little over 1.
        classes: str [C], text of each class.
        convention: how the steps are to be read.
        runs: whether to say at which steps each character was seen.

    Returns:
        N paths, in order.
    """
    kept = indices != convention.blank
    if convention.ends:
        kept = np.logical_and.accumulate(kept, axis=1)
    else:
        kept[:, 1:] &= indices[:, 1:] != indices[:, :-1]
    rows, steps = np.nonzero(kept)
    # In 64 bits, as Python's own numbers are.
    values = np.minimum(confidences[rows, steps].astype(np.float64), 1.0)
    counts = np.bincount(rows, minlength=len(indices))
    means = (np.bincount(rows, weights=values, minlength=len(indices)) / np.maximum(counts, 1)).tolist()
    ends = np.cumsum(counts).tolist()
    # One conversion for all characters of the batch; what follows for each crop is slicing.
    letters, numbers = classes[indices[rows, steps]].tolist(), values.tolist()
    found = _runs(indices, rows, steps) if runs else []
    paths, begin = [], 0
    for end, mean in zip(ends, means, strict=True):
        characters = tuple(letters[begin:end])
        paths.append(Path("".join(characters), mean, characters, tuple(numbers[begin:end]), tuple(found[begin:end])))
        begin = end
    return paths


def _runs(indices: NDArray[Any], rows: NDArray[Any], steps: NDArray[Any]) -> list[tuple[int, int]]:
    """First and last step of the runs that begin at these steps."""
    begins = np.ones(indices.shape, dtype=bool)
    begins[:, 1:] = indices[:, 1:] != indices[:, :-1]
    # Over all rows, each of which begins a run; the end of the last one of all is the end of the array.
    flat = np.append(np.flatnonzero(begins), indices.size)
    own = np.searchsorted(flat, rows * indices.shape[1] + steps)
    lengths = flat[own + 1] - flat[own]
    return list(zip(steps.tolist(), (steps + lengths - 1).tolist(), strict=True))
