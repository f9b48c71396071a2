"""Screens, signs and shelf labels, and print of unusual shape: strips, and letters as high as a hand."""

from __future__ import annotations

import random

from benchmarks.accuracy.drawing import camera, wording
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.drawing.sheet import Colour, Sheet
from benchmarks.accuracy.picture import Picture

__all__ = ["large_letters", "screen", "shelf_label", "sign", "strip"]

PAINTS: tuple[tuple[Colour, Colour], ...] = (
    ((20, 90, 50), (250, 250, 245)),
    ((15, 60, 140), (250, 250, 250)),
    ((250, 205, 30), (20, 20, 20)),
    ((180, 25, 30), (250, 245, 240)),
    ((245, 245, 240), (20, 20, 25)),
    ((40, 40, 45), (240, 200, 60)),
)


def screen(chance: random.Random, fonts: Fonts, *, dark: bool) -> Picture:
    """A window with a menu, a list, a text and a status line, as a screen shows it: small letters, no noise."""
    width, height = 1280, 800
    paper, ink, bar = (
        ((32, 34, 38), (222, 224, 228), (48, 52, 60)) if dark else ((252, 252, 252), (30, 32, 36), (232, 234, 238))
    )
    sheet = Sheet(width, height, paper)
    font, small = fonts.at("sans", chance.choice([13, 14])), fonts.at("sans", 12)
    code = fonts.at("mono", 13)
    sheet.pen.rectangle((0, 0, width, 30), fill=bar)
    sheet.line(
        f"{wording.title(chance, 2)} - {wording.title(chance, 1)} {chance.randint(1, 9)}.{chance.randint(0, 20)}",
        14,
        20,
        font,
        ink,
    )
    x = 14.0
    for name in ("File", "Edit", "View", "Search", "Tools", "Window", "Help"):
        x = sheet.line(name, x, 54, font, ink) + 22
    y = 96
    while y < height - 60:
        sheet.line(f"{wording.title(chance, 1)} {wording.number(chance, 3)}", 18, y, font, ink)
        y += 26
    sheet.pen.line((230, 70, 230, height - 30), fill=bar, width=1)
    y = 100
    while y < height - 60:
        if chance.random() < 0.7:
            sheet.line(wording.prose(chance, chance.randint(6, 12)), 250, y, font, ink)
        else:
            sheet.line(f"{wording.word(chance)} = {wording.number(chance, 4)}", 250, y, code, ink)
        y += 27
    sheet.pen.rectangle((0, height - 28, width, height), fill=bar)
    sheet.line(f"Line {wording.number(chance, 3)}, column {wording.number(chance, 2)}", 14, height - 9, small, ink)
    return sheet.picture()


def sign(chance: random.Random, fonts: Fonts) -> Picture:
    """A painted sign, hung up to 6 degrees askew, seen from a side."""
    width, height = chance.choice([(640, 480), (800, 600), (480, 640)])
    paint, ink = chance.choice(PAINTS)
    sheet = Sheet(width, height, paint)
    role = chance.choice(["sans", "heavy", "narrow", "serif"])
    rows = chance.randint(2, 4)
    size = min(height / (rows * 1.8), width / 9)
    font = fonts.at(role, size)
    for row in range(rows):
        words = [
            wording.title(chance, 1) if chance.random() < 0.8 else wording.number(chance, 3)
            for _ in range(chance.choice([1, 2, 2]))
        ]
        text = " ".join(words).upper() if chance.random() < 0.4 else " ".join(words)
        while font.getlength(text) > width * 0.86:
            text = " ".join(text.split()[:-1]) or text[:8]
        sheet.centre(text, width / 2, height / 2 + (row - (rows - 1) / 2) * size * 1.5 + size * 0.35, font, ink)
    wall = tuple(chance.randint(60, 190) for _ in range(3))
    hung = camera.turned(sheet.picture(), chance.uniform(-6, 6), wall)
    seen = camera.photographed(hung, chance, depth=0.06, shadow=0.4)
    seen = camera.noisy(seen, chance.randrange(2**32), 8, blur=1.0)
    return Picture(seen.pixels, seen.lines, upright=False, jpeg_quality=80)


def shelf_label(chance: random.Random, fonts: Fonts) -> Picture:
    """A shop's label: a name, a large price, small print below."""
    width, height = 480, 300
    sheet = Sheet(width, height, chance.choice([(252, 252, 248), (250, 225, 60), (240, 240, 240)]))
    sheet.line(wording.title(chance, 2)[:20], 24, 56, fonts.at("heavy", 38))
    sheet.line(
        f"{wording.word(chance)} {wording.word(chance)} {wording.number(chance, 3)} g", 24, 94, fonts.at("sans", 24)
    )
    sheet.line(f"{chance.randint(1, 99)}.{chance.randrange(100):02}", 190, 214, fonts.at("heavy", 104), (190, 20, 25))
    sheet.line("EUR", 24, 214, fonts.at("heavy", 44))
    sheet.line(f"1 kg = {chance.randint(1, 60)}.{chance.randrange(100):02} EUR", 24, 264, fonts.at("narrow", 22))
    sheet.line(wording.number(chance, 8), 340, 264, fonts.at("mono", 20))
    hung = camera.turned(sheet.picture(), chance.uniform(-4, 4), (90, 85, 80))
    seen = camera.photographed(hung, chance, depth=0.04, shadow=0.3)
    seen = camera.noisy(seen, chance.randrange(2**32), 6, blur=0.7)
    return Picture(seen.pixels, seen.lines, upright=False, jpeg_quality=80)


def strip(chance: random.Random, fonts: Fonts) -> Picture:
    """One line of 3000 x 40 pixels, as ticker tapes and time lines have them."""
    sheet = Sheet(3000, 40)
    font = fonts.at(chance.choice(["sans", "serif", "mono"]), 26)
    x = 20.0
    row: list[str] = []
    while x + 240 < 3000:
        row.append(chance.choice([wording.word(chance), wording.title(chance, 1), wording.number(chance, 5)]))
        x += font.getlength(row[-1]) + font.getlength(" ")
    sheet.line(row, 20, 29, font)
    return sheet.picture()


def large_letters(chance: random.Random, fonts: Fonts) -> Picture:
    """A poster: two to four words, each of them as wide as the picture."""
    width = 1600
    sheet = Sheet(width, 1200, (248, 246, 240))
    y = 60.0
    for _ in range(chance.randint(3, 4)):
        text = wording.title(chance, 1)
        size = min(260.0, 100 * (width - 160) / fonts.at("heavy", 100).getlength(text))
        y += size
        sheet.line(text, 80, y, fonts.at("heavy", size), (25, 25, 30))
        y += size * 0.12
    return sheet.picture()
