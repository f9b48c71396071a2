"""Receipts, forms and invoices."""

from __future__ import annotations

import random

from benchmarks.accuracy.drawing import camera, wording
from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.drawing.sheet import Sheet
from benchmarks.accuracy.picture import Picture

__all__ = ["form", "invoice", "receipt"]

RULE = (150, 150, 155)
FAINT = (95, 95, 100)
FIELDS = (
    "Family name", "Given names", "Date of birth", "Place of birth", "Street and number", "Postal code", "Town",
    "Telephone", "E-mail address", "Nationality", "Passport number", "Employer", "Occupation", "Annual income",
    "Signature of applicant", "Account number", "Bank", "Purpose",
)  # fmt: skip


def receipt(chance: random.Random, fonts: Fonts) -> Picture:
    """80 mm of a till's paper at 203 dpi, a little askew."""
    width, items = 576, chance.randint(8, 16)
    role = chance.choice(["mono", "narrow"])
    font, large = fonts.at(role, 23), fonts.at(role, 34)
    sheet = Sheet(width, 420 + items * 34, (244, 243, 238))
    ink = (chance.randint(30, 80),) * 3
    sheet.centre(wording.title(chance, 2), width / 2, 60, large, ink)
    sheet.centre(f"{wording.number(chance, 2)} {wording.title(chance, 1)} Road", width / 2, 95, font, ink)
    sheet.centre(
        f"{wording.date(chance)} {chance.randint(8, 20):02}:{chance.randrange(60):02}", width / 2, 128, font, ink
    )
    y = 180
    for _ in range(items):
        sheet.line(f"{chance.randint(1, 9)} {wording.title(chance, 2)[:22]}", 28, y, font, ink)
        sheet.right(f"{chance.randint(0, 60)}.{chance.randrange(100):02}", width - 28, y, font, ink)
        y += 34
    sheet.pen.line((28, y - 12, width - 28, y - 12), fill=ink, width=2)
    sheet.line("TOTAL EUR", 28, y + 30, large, ink)
    sheet.right(wording.amount(chance), width - 28, y + 30, large, ink)
    sheet.line("VAT 19%", 28, y + 72, font, ink)
    sheet.right(f"{chance.randint(0, 90)}.{chance.randrange(100):02}", width - 28, y + 72, font, ink)
    sheet.line(f"Card **** {wording.number(chance, 4)}", 28, y + 106, font, ink)
    sheet.centre("Thank you for your visit", width / 2, y + 150, font, ink)
    askew = camera.turned(sheet.picture(), chance.uniform(-1.5, 1.5), (120, 110, 100))
    return camera.noisy(askew, chance.randrange(2**32), 7, blur=0.7)


def form(chance: random.Random, fonts: Fonts) -> Picture:
    """Fields with small labels and what was filled in, at 200 dpi."""
    width, height = 1654, 2000
    sheet = Sheet(width, height)
    label, value, heading = fonts.at("sans", 20), fonts.at("mono", 31), fonts.at("heavy", 46)
    sheet.line(f"Application for a {wording.word(chance)} permit", 110, 150, heading)
    sheet.line(f"Form {wording.number(chance, 4)}-{chance.choice('ABCD')}", 1300, 150, label, FAINT)
    names = list(FIELDS)
    chance.shuffle(names)
    y = 220
    while names and y < height - 260:
        row = [names.pop() for _ in range(min(len(names), chance.choice([1, 2, 3])))]
        field = (width - 220) / len(row)
        for place, name in enumerate(row):
            left = 110 + place * field
            sheet.pen.rectangle((left, y, left + field - 16, y + 92), outline=RULE, width=2)
            sheet.line(name, left + 12, y + 28, label, FAINT)
        for place, name in enumerate(row):
            sheet.line(
                _filled(chance, name, round(field // 20) - 2), 110 + place * field + 16, y + 74, value, (25, 35, 110)
            )
        y += 118
    for text in ("I have read the conditions", "Send a copy by post", "First application"):
        sheet.pen.rectangle((110, y, 138, y + 28), outline=RULE, width=3)
        if chance.random() < 0.5:
            sheet.pen.line((114, y + 14, 122, y + 24, 136, y + 2), fill=(25, 35, 110), width=4)
        sheet.line(text, 156, y + 24, label)
        y += 48
    return camera.noisy(sheet.picture(), chance.randrange(2**32), 3)


def _filled(chance: random.Random, name: str, room: int) -> str:
    if "Date" in name:
        return wording.date(chance)
    if any(part in name for part in ("number", "code", "Telephone", "income")):
        return wording.number(chance, 8)
    if "mail" in name:
        return f"{wording.word(chance)}@{wording.word(chance)}.org"
    text = wording.title(chance, 2)
    return text if len(text) <= room else text.split()[0]


def invoice(chance: random.Random, fonts: Fonts) -> Picture:
    """A table of positions at 200 dpi, in 8 and 9 pt, saved as JPEG."""
    dpi = 200
    width, height = round(8.27 * dpi), round(11.69 * dpi)
    sheet = Sheet(width, height)
    small, font, heading = (fonts.at("sans", points * dpi / 72) for points in (8, 9, 18))
    sheet.line(f"{wording.title(chance, 2)} Ltd.", 120, 170, heading)
    sheet.right(f"Invoice {wording.number(chance, 8)}", width - 120, 170, heading)
    sheet.line(
        f"{wording.title(chance, 1)} Street {wording.number(chance, 2)}, {wording.title(chance, 1)}", 120, 230, font
    )
    sheet.right(f"Date {wording.date(chance)}", width - 120, 230, font)
    sheet.right(f"Customer {wording.number(chance, 5)}", width - 120, 262, font)
    columns = (
        ("Position", 200, True),
        ("Article", 300, False),
        ("Quantity", 950, True),
        ("Price", 1220, True),
        ("Amount", width - 130, True),
    )
    y = 360
    sheet.pen.rectangle((120, y - 30, width - 120, y + 12), fill=(225, 228, 235))
    for name, x, right in columns:
        (sheet.right if right else sheet.line)(name, x, y, font)
    for row in range(1, chance.randint(24, 34)):
        y += 44
        values = (
            str(row),
            wording.title(chance, 3).lower(),
            wording.number(chance, chance.randint(1, 3)),
            wording.amount(chance),
            wording.amount(chance),
        )
        for (_, x, right), value in zip(columns, values, strict=True):
            (sheet.right if right else sheet.line)(value, x, y, font)
        sheet.pen.line((120, y + 14, width - 120, y + 14), fill=RULE, width=1)
    sheet.right(f"Total {wording.amount(chance)}", width - 130, y + 60, fonts.at("heavy", 11 * dpi / 72))
    sheet.column(wording.prose(chance, 90), (120, y + 90, width - 120, height - 100), small, leading=1.35)
    found = sheet.picture()
    return Picture(found.pixels, found.lines, jpeg_quality=80)
