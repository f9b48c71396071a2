"""Accents, Chinese and Japanese in rows and columns, and lines that run down or stand on their heads."""

from __future__ import annotations

import random

from benchmarks.accuracy.drawing import wording
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.drawing.sheet import Sheet
from benchmarks.accuracy.picture import Picture

__all__ = ["accents", "columns", "downward_words", "rows", "upside_down"]


def accents(chance: random.Random, fonts: Fonts) -> Picture:
    """A page of 11 pt at 200 dpi in nine languages."""
    sheet = Sheet(1300, 1000)
    words = wording.accented(chance, 170)
    sheet.column(words, (90, 80, 1210, 940), fonts.at(chance.choice(["sans", "serif"]), 31), leading=1.45)
    return sheet.picture()


def rows(chance: random.Random, fonts: Fonts, text: str) -> Picture:
    """Chinese or Japanese in rows, at the size of a book."""
    sheet = Sheet(1240, 900)
    font = fonts.at("east", chance.choice([34, 38, 42]))
    fit = int(1060 // font.size)
    for row in range(11):
        written = wording.characters(chance, text, fit)
        sheet.line([written], 90, 100 + row * font.size * 1.7, font)
    return sheet.picture()


def columns(chance: random.Random, fonts: Fonts, text: str) -> Picture:
    """Chinese or Japanese in columns, from right to left."""
    sheet = Sheet(1100, 900)
    font = fonts.at("east", chance.choice([34, 38, 42]))
    fit = int(740 // (font.size * 1.06))
    for column in range(10):
        sheet.down(wording.characters(chance, text, fit), 1010 - column * font.size * 2.2, 70, font)
    return sheet.picture()


def downward_words(chance: random.Random, fonts: Fonts) -> Picture:
    """Words along the sides of a diagram: each runs down or up; the headings lie."""
    sheet = Sheet(1400, 900)
    font = fonts.at("sans", 30)
    sheet.line(wording.title(chance, 4), 120, 80, fonts.at("sans", 42))
    x = 110.0
    while x < 1300:
        # A word of two letters is no taller than wide, however it is turned.
        text = f"{wording.title(chance, 1)} {wording.number(chance, 4)}"
        size = sheet.turned(text, (x, 140 + chance.randint(0, 60)), font, chance.choice([90, 270]))
        sheet.pen.line((x + size[0] / 2, 560, x + size[0] / 2, 800), fill=(120, 140, 190), width=14)
        x += 90
    sheet.line(wording.prose(chance, 8), 120, 860, fonts.at("sans", 30))
    return sheet.picture(upright=False)


def upside_down(chance: random.Random, fonts: Fonts) -> Picture:
    """A sheet on which every other block was printed for whoever sits on the other side."""
    sheet = Sheet(1300, 900)
    font = fonts.at("serif", 32)
    y = 60
    for block in range(6):
        for _ in range(2):
            text = " ".join(wording.prose(chance, 7))
            if block % 2:
                sheet.turned(text, (100, y), font, 180)
            else:
                sheet.line(text, 100, y + 32, font)
            y += 48
        y += 36
    return sheet.picture(upright=False)
