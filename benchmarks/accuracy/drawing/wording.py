"""What stands in drawn pictures: words, numbers, dates, amounts and sentences of several languages."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

__all__ = ["CHINESE", "JAPANESE", "accented", "amount", "characters", "date", "number", "prose", "title", "word"]

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_ENGLISH: list[str] = _TABLES["english"].split()
_NAMES: list[str] = _TABLES["names"].split()
_MONTHS: list[str] = _TABLES["months"].split()
_ACCENTED: dict[str, list[str]] = {language: text.split() for language, text in _TABLES["accented"].items()}
CHINESE: str = _TABLES["chinese"]
JAPANESE: str = _TABLES["japanese"]


def word(chance: random.Random) -> str:
    """A word of a sentence."""
    return chance.choice(_ENGLISH)


def title(chance: random.Random, words: int) -> str:
    """Some words with capitals."""
    return " ".join(chance.choice([*_NAMES, *_ENGLISH[110:]]).capitalize() for _ in range(words))


def number(chance: random.Random, digits: int) -> str:
    """So many digits, the first of them not 0."""
    return str(chance.randrange(10 ** (digits - 1), 10**digits))


def amount(chance: random.Random) -> str:
    """An amount of money."""
    whole = chance.randrange(1, 10 ** chance.randint(1, 4))
    return f"{whole:,}.{chance.randrange(100):02}"


def date(chance: random.Random) -> str:
    """A day, in one of three ways."""
    day, month, year = chance.randint(1, 28), chance.randint(1, 12), chance.randint(1998, 2027)
    return chance.choice(
        [f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}", f"{day} {_MONTHS[month - 1]} {year}"]
    )


def prose(chance: random.Random, words: int) -> list[str]:
    """Words of sentences, with capitals, commas, full stops, and a number, date or amount now and then."""
    made: list[str] = []
    left = 0
    while len(made) < words:
        start = left == 0
        if start:
            left = chance.randint(6, 16)
        left -= 1
        kind = chance.random()
        if kind < 0.04 and not start:
            made += date(chance).split()
            continue
        text = amount(chance) if kind < 0.08 else chance.choice(_NAMES) if kind < 0.12 else word(chance)
        text = text[0].upper() + text[1:] if start else text
        if left == 0:
            text += chance.choice("....?!")
        elif chance.random() < 0.08:
            text += chance.choice(",,,;:")
        made.append(text)
    return made[:words]


def accented(chance: random.Random, words: int) -> list[str]:
    """Words with accents; each sentence in a language of its own."""
    made: list[str] = []
    while len(made) < words:
        made += [chance.choice(_ACCENTED[language]) for language in [chance.choice(list(_ACCENTED))] for _ in range(9)]
    return made[:words]


def characters(chance: random.Random, text: str, count: int) -> str:
    """So many characters of sentences in a random order."""
    sentences = [part + "。" for part in "".join(text.split()).split("。") if part]
    made = ""
    while len(made) < count:
        made += chance.choice(sentences)
    return made[:count]
