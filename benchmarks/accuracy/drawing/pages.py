"""Printed pages: A4 in several sizes of print, in one and two columns, scanned well and badly."""

from __future__ import annotations

import random

from benchmarks.accuracy.drawing import camera, wording
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.drawing.sheet import Sheet
from benchmarks.accuracy.picture import Picture

__all__ = ["bad_copy", "faint", "jpeg", "letter", "page", "photographed_page", "skewed", "thumbnail"]

WIDTH_IN, HEIGHT_IN, MARGIN_IN, GAP_IN = 8.27, 11.69, 0.8, 0.35


def page(
    chance: random.Random, fonts: Fonts, points: float, columns: int, *, dpi: int = 300, share: float = 1.0
) -> Picture:
    """A page full of prose.

    Args:
        chance: decides what stands there.
        fonts: to draw with.
        points: size of the print.
        columns: one or two.
        dpi: pixels to an inch.
        share: of the height of the page that is filled.
    """
    width, height, margin, gap = (round(inches * dpi) for inches in (WIDTH_IN, HEIGHT_IN, MARGIN_IN, GAP_IN))
    sheet = Sheet(width, height)
    font = fonts.at(chance.choice(["sans", "serif"]), points * dpi / 72)
    column = (width - 2 * margin - gap * (columns - 1)) / columns
    words = wording.prose(chance, 3000)
    for number in range(columns):
        left = margin + number * (column + gap)
        box = (left, margin, left + column, margin + (height - 2 * margin) * share)
        used = sheet.column(words, box, font, leading=1.3)
        words = words[used:]
    return sheet.picture()


def skewed(chance: random.Random, fonts: Fonts, degrees: float) -> Picture:
    """A page of 10 pt that lay so on the scanner's glass, to one side or the other."""
    return camera.turned(page(chance, fonts, 10, 1), degrees * chance.choice([-1, 1]))


def letter(chance: random.Random, fonts: Fonts) -> Picture:
    """A letter at 200 dpi that was scanned a few degrees askew."""
    dpi = 200
    sheet = Sheet(round(WIDTH_IN * dpi), round(HEIGHT_IN * dpi))
    size = chance.choice([10, 11, 12]) * dpi / 72
    role = chance.choice(["sans", "serif"])
    font, heading = fonts.at(role, size), fonts.at(role, size * 1.4)
    left, right = dpi, (WIDTH_IN - 1) * dpi
    sheet.line(wording.title(chance, 2) + " Ltd.", left, 0.9 * dpi, heading)
    y = 1.2 * dpi
    for text in (
        f"{wording.number(chance, 2)} {wording.title(chance, 1)} Street",
        wording.title(chance, 1),
        wording.date(chance),
    ):
        sheet.line(text, left, y, font)
        y += size * 1.35
    y += size * 2
    sheet.line(f"Dear {wording.title(chance, 1)},", left, y, font)
    for _ in range(chance.randint(3, 4)):
        begun = len(sheet.lines)
        y += size
        words = wording.prose(chance, chance.randint(40, 70))
        sheet.column(words, (left, y, right, (HEIGHT_IN - 1.6) * dpi), font, leading=1.4)
        y += (len(sheet.lines) - begun) * size * 1.4
    sheet.line("Yours sincerely,", left, y + size * 2.5, font)
    sheet.line(wording.title(chance, 2), left, y + size * 5, font)
    askew = chance.choice([-1, 1]) * chance.uniform(2, 8)
    return camera.noisy(camera.turned(sheet.picture(), askew), chance.randrange(2**32), 4)


def photographed_page(chance: random.Random, fonts: Fonts) -> Picture:
    """Half a page of 12 pt by a telephone: from a side, with a shadow, a little blurred."""
    sheet = page(chance, fonts, 12, 1, dpi=200, share=0.5)
    seen = camera.photographed(sheet, chance, depth=0.05, shadow=0.6)
    seen = camera.noisy(seen, chance.randrange(2**32), 5, blur=0.8)
    return Picture(seen.pixels, seen.lines, upright=False, jpeg_quality=85)


def bad_copy(chance: random.Random, fonts: Fonts) -> Picture:
    """A page of 11 pt at 200 dpi, black and white with specks, as a fax gives it."""
    return camera.copied(page(chance, fonts, 11, 1, dpi=200, share=0.6), chance.randrange(2**32))


def jpeg(chance: random.Random, fonts: Fonts) -> Picture:
    """A page of 10 pt at 150 dpi, saved with little care."""
    found = page(chance, fonts, 10, 1, dpi=150, share=0.7)
    return Picture(found.pixels, found.lines, found.upright, jpeg_quality=25)


def faint(chance: random.Random, fonts: Fonts) -> Picture:
    """Grey print on grey or coloured paper."""
    dpi = 200
    shade = chance.randint(195, 225)
    sheet = Sheet(round(6 * dpi), round(8 * dpi), (shade, shade, chance.randint(175, 225)))
    font = fonts.at(chance.choice(["sans", "serif"]), 11 * dpi / 72)
    dark = shade - chance.randint(55, 75)
    words = wording.prose(chance, 160)
    y = dpi * 0.8
    while words and y < 7.2 * dpi:
        row = [words.pop(0) for _ in range(min(len(words), 9))]
        sheet.line(row, dpi * 0.5, y, font, (dark, dark, dark))
        y += font.size * 1.5
    return camera.noisy(sheet.picture(), chance.randrange(2**32), 5)


def thumbnail(chance: random.Random, fonts: Fonts) -> Picture:
    """A picture of a word or two that is hardly larger than they are."""
    size = chance.randint(11, 20)
    font = fonts.at(chance.choice(["sans", "serif", "mono"]), size)
    text = f"{wording.title(chance, 1)} {wording.number(chance, chance.randint(1, 3))}"
    sheet = Sheet(round(font.getlength(text)) + 10, round(size * 1.5))
    sheet.line(text, 5, size * 1.1, font)
    return sheet.picture()
