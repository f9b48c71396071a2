"""How large an image is shown to a detector: what configurations, requests and answers of APIs may say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

__all__ = ["MOST", "Scale", "scale_of"]

# Enlarged by more, letters gain nothing: whatever a detector finds at all, it finds at a few times its size.
MOST = 4.0

Scale = Literal["auto", "fast"] | float
"""A part of the image's size, above 0 and at most `MOST`; or `fast`: as one input; or `auto`: likewise, and once more
in parts where letters are small."""


_WORDS: Mapping[str, Scale] = {"auto": "auto", "fast": "fast"}


def scale_of(text: str) -> Scale:
    """Read it as the contract has it: a text.

    Raises:
        ValueError: it is neither of the two words nor a number above 0, at most `MOST`; with words for people.
    """
    if text in _WORDS:
        return _WORDS[text]
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor <= MOST:
        raise ValueError(f"must be auto, fast, or a number above 0, at most {MOST:g}")
    return factor
