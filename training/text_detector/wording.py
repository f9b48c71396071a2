"""Strings to draw: words, numbers and the things printed on receipts, in several scripts.

A detector does not read, so the words need the shapes of writing (lengths, ascenders, digits, punctuation), not sense.
"""

# ruff: noqa: E501, RUF001, SIM905  lists of words as text; characters of many scripts, look-alikes among them

from __future__ import annotations

import random

_COMMON = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which you "
    "one we all were her would there their will when who him been has more if no out do so can what up said about other "
    "into than its time only could new them man some these then two first may any like now my such make over our even "
    "most me state after also made many before through where much your way down should because each just people world "
    "general system program window file edit view insert format tools help settings network password account address "
    "market price total amount tax cash change invoice order number date customer quantity service street avenue city "
    "open closed sale exit entrance warning caution danger parking station platform ticket museum gallery library "
    "der die und das nicht ein ist von mit auf für eine auch werden aus dem wird über Straße Größe Übung "
    "el la que de no una por con para está más pero como año señor niño está también "
    "le la les des est une dans pour qui pas été être où déjà très forêt garçon"
).split()
_ONSET = "b c d f g h j k l m n p r s t v w br ch cl cr dr fl fr gl gr pl pr qu sc sh sk sl sp st str th tr".split()
_NUCLEUS = "a e i o u a e i o ai au ea ee ie io oa oo ou".split()
_CODA = ["", "", "", "n", "r", "s", "t", "l", "m", "ng", "nt", "rd", "st", "ck", "th", "x", "y"]
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_KANA = "".join(chr(c) for c in range(0x3041, 0x3094)) + "".join(chr(c) for c in range(0x30A1, 0x30F5))


def hanzi() -> str:
    """Every other one of the 3,755 common characters of GB 2312 level 1: half keeps the subset fonts small."""
    rows = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    decoded = (pair.decode("gb2312", errors="ignore") for pair in rows)
    return "".join(char for char in decoded if char)[::2]


_HANZI = hanzi()
SCRIPTS = ("latin", "han", "cyrillic", "greek", "kana")
CHARACTERS = {
    "latin": "".join(chr(c) for c in range(0x20, 0x7F)) + "".join(chr(c) for c in range(0xA1, 0x180)) + "–—‘’“”•…€™",
    "han": _HANZI + "，。、；：？！（）《》“”",
    "cyrillic": _CYRILLIC + _CYRILLIC.upper(),
    "greek": _GREEK + _GREEK.upper(),
    "kana": _KANA,
}


def pick_script(rng: random.Random) -> str:
    """Draw a script; Latin and Chinese are nine in ten."""
    return rng.choices(SCRIPTS, (62, 27, 5, 3, 3))[0]


def number(rng: random.Random) -> str:
    """A number, price, date, time, code or quantity."""
    kind = rng.randrange(9)
    if kind == 0:
        return f"{rng.choice('$€£¥')}{rng.uniform(0.5, 2000):.2f}"
    if kind == 1:
        return f"{rng.randint(1, 31):02d}/{rng.randint(1, 12):02d}/{rng.randint(1970, 2030)}"
    if kind == 2:
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    if kind == 3:
        return f"{rng.randint(1, 100)}%"
    if kind == 4:
        return "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ0123456789-") for _ in range(rng.randint(4, 12)))
    if kind == 5:
        return f"{rng.randint(1, 12)}x"
    if kind == 6:
        return f"+{rng.randint(1, 99)}-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}"
    if kind == 7:
        return f"{rng.uniform(0, 1000):.{rng.randint(1, 3)}f}"
    return str(rng.randint(0, 10 ** rng.randint(1, 7)))


def _latin(rng: random.Random) -> str:
    if rng.random() < 0.55:
        text = rng.choice(_COMMON)
    else:
        text = "".join(
            rng.choice(_ONSET) + rng.choice(_NUCLEUS) + rng.choice(_CODA)
            for _ in range(rng.choices((1, 2, 3, 4), (4, 5, 3, 1))[0])
        )
    roll = rng.random()
    if roll < 0.22:
        text = text.capitalize()
    elif roll < 0.30:
        text = text.upper()
    elif roll < 0.33:
        text = f"{text}@{rng.choice(_COMMON)}.com"
    elif roll < 0.36:
        text = rng.choice(("./", "www.", "--", "_")) + text + rng.choice((".py", ".org", "()", "_id", ".txt"))
    return text


def word(rng: random.Random, script: str) -> str:
    """One word without spaces, in `script`, sometimes with punctuation."""
    if rng.random() < 0.09:
        return number(rng)
    if script == "latin":
        text = _latin(rng)
    else:
        alphabet = {"han": _HANZI, "cyrillic": _CYRILLIC, "greek": _GREEK, "kana": _KANA}[script]
        longest = 9 if script in ("han", "kana") else 11
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, longest)))
        if script in ("cyrillic", "greek") and rng.random() < 0.25:
            text = text.upper() if rng.random() < 0.4 else text.capitalize()
    roll = rng.random()
    if roll < 0.10:
        text += rng.choice(("，", "。", "、", "：") if script in ("han", "kana") else (",", ".", ";", ":", "!", "?"))
    elif roll < 0.13 and script == "latin":
        text = rng.choice(("({})", "[{}]", '"{}"', "*{}", "- {}".replace(" ", ""))).format(text)
    return text


def words(rng: random.Random, script: str, count: int) -> list[str]:
    """`count` words; some in Latin script among the others, as in real print."""
    return [word(rng, script if script == "latin" or rng.random() > 0.12 else "latin") for _ in range(count)]
