"""What counts as the same text. One rule for every reader and every class."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["characters_of", "normalised", "words_of"]

# Which of several signs that look alike stands for a quote or a dash is a matter of fonts, and not of reading.
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2022\u00b7\u25cf\u30fb", "\u00b7"),
        "\u3002": ".",
        "\u3001": ",",
        "\u00d7": "x",
    }
)
# Chinese characters, kana and Hangul are written without spaces: each is a word of its own.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


def normalised(text: str) -> str:
    """Compatibility forms folded (NFKC: full-width letters, ligatures), quotes and dashes made alike. Case stays."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_ALIKE))


def words_of(text: str) -> list[str]:
    """Words between spaces, with their punctuation; of scripts without spaces each character."""
    return _WORD.findall(normalised(text))


def characters_of(text: str) -> str:
    """All characters but spaces: what lies between words is what counting words judges."""
    return "".join(normalised(text).split())
