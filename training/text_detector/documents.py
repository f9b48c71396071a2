"""Layouts printed on paper: pages and receipts."""

from __future__ import annotations

import random

from .canvas import Canvas, Colour
from .fonts import FontBook
from .wording import number, pick_script, words


def paper(rng: random.Random) -> Colour:
    """A paper colour, mostly near white."""
    base = rng.choice((255, 255, rng.randint(225, 254), rng.randint(170, 225)))
    return base, max(0, base - rng.choice((0, 0, 4, 12))), max(0, base - rng.choice((0, 0, 10, 35)))


def ink(rng: random.Random, background: Colour) -> Colour:
    """A colour that reads on `background`; faint ink now and then."""
    dark_ground = sum(background) < 384
    for _ in range(20):
        colour: Colour = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if rng.random() < 0.6:
            grey = rng.randint(190, 255) if dark_ground else rng.randint(0, 90)
            colour = (grey, grey, grey)
        if sum(abs(a - b) for a, b in zip(colour, background, strict=True)) > 170:
            return colour
    return (255, 255, 255) if dark_ground else (0, 0, 0)


def _paragraph(  # noqa: PLR0917  a place, a look and a text
    rng: random.Random,
    canvas: Canvas,
    box: tuple[float, float, float, float],
    path: str,
    size: int,
    script: str,
    fill: Colour,
) -> float:
    """Fill a box with lines of text; returns the y after the last line."""
    left, top, right, bottom = box
    font = FontBook.at(path, size)
    leading = size * rng.uniform(1.12, 1.75)
    aligned = rng.random()
    y, lines = top, rng.randint(1, 14)
    gap = 0.6 if script in ("han", "kana") and rng.random() < 0.7 else rng.uniform(0.85, 1.6)
    while y + size * 1.2 < bottom and lines > 0:
        lines -= 1
        short = rng.uniform(0.2, 0.95) if lines == 0 else 1.0
        width = right - left
        text = words(rng, script, 40)
        start = left
        if aligned > 0.9:  # ragged left, as centred text has
            start = left + rng.uniform(0, 0.3) * width
        canvas.line(start, y, text, font, fill, left + width * short, gap)
        y += leading
    return y


def _table(  # noqa: PLR0917  likewise
    rng: random.Random,
    canvas: Canvas,
    box: tuple[float, float, float, float],
    path: str,
    size: int,
    script: str,
    fill: Colour,
) -> float:
    left, top, right, bottom = box
    columns, rows = rng.randint(2, 7), rng.randint(2, 14)
    font = FontBook.at(path, size)
    height = size * rng.uniform(1.3, 2.4)
    edges = [left + (right - left) * i / columns for i in range(columns + 1)]
    ruled = rng.random() < 0.6
    y = top
    for row in range(rows):
        if y + height > bottom:
            break
        if row == 0 and rng.random() < 0.4 and sum(fill) < 384:
            canvas.draw.rectangle((left, y, right, y + height), fill=(rng.randint(190, 235),) * 3)
        for column in range(columns):
            if rng.random() < 0.08:
                continue
            cell = [number(rng)] if rng.random() < 0.45 and row else words(rng, script, rng.randint(1, 3))
            offset = rng.choice((3, 3, (edges[1] - edges[0]) * 0.3))
            canvas.line(edges[column] + offset, y + (height - size) * 0.4, cell, font, fill, edges[column + 1] - 2)
        if ruled:
            canvas.draw.line((left, y, right, y), fill=fill)
        y += height
    if ruled:
        canvas.draw.line((left, y, right, y), fill=fill)
        if rng.random() < 0.6:
            for edge in edges:
                canvas.draw.line((edge, top, edge, y), fill=fill)
    return y


def page(rng: random.Random, fonts: FontBook, width: int, height: int) -> Canvas:
    """A page: headings, paragraphs in one to three columns, tables, rules and figures."""
    ground = paper(rng) if rng.random() < 0.9 else (rng.randint(10, 70),) * 3
    canvas = Canvas.blank(width, height, ground)
    script = pick_script(rng)
    body, head = fonts.pick(rng, script), fonts.pick(rng, script)
    size = round(rng.triangular(8, 30, 13) * width / 800) + 1
    fill = ink(rng, ground)
    margin = width * rng.uniform(0.02, 0.13)
    columns = rng.choices((1, 2, 3), (6, 3, 1))[0]
    gutter = size * rng.uniform(1.2, 3)
    column_width = (width - 2 * margin - gutter * (columns - 1)) / columns
    top = margin * rng.uniform(0.4, 1.2)
    if rng.random() < 0.6:
        big = int(size * rng.uniform(1.4, 3.2))
        canvas.line(
            margin + rng.random() * width * 0.2,
            top,
            words(rng, script, rng.randint(1, 7)),
            FontBook.at(head, big),
            ink(rng, ground),
            width - margin,
        )
        top += big * 1.7
    for column in range(columns):
        left = margin + column * (column_width + gutter)
        y = top
        while y < height - margin - size * 2:
            box = (left, y, left + column_width, height - margin)
            kind = rng.random()
            if kind < 0.68:
                y = _paragraph(rng, canvas, box, body, size, script, fill)
            elif kind < 0.80:
                y = _table(rng, canvas, box, body, max(8, size - 1), script, fill)
            elif kind < 0.92:
                sub = int(size * rng.uniform(1.1, 1.8))
                canvas.line(
                    left,
                    y,
                    words(rng, script, rng.randint(1, 5)),
                    FontBook.at(head, sub),
                    ink(rng, ground),
                    left + column_width,
                )
                y += sub * 1.5
            else:
                deep = rng.uniform(3, 12) * size
                shade = (rng.randint(120, 240), rng.randint(120, 240), rng.randint(120, 240))
                canvas.draw.rectangle(
                    (left, y, left + column_width * rng.uniform(0.4, 1), min(y + deep, height - margin)),
                    outline=fill,
                    fill=rng.choice((None, shade)),
                )
                y += deep + size
            y += size * rng.uniform(0.4, 2.0)
    if rng.random() < 0.5:
        canvas.word(
            width * rng.uniform(0.1, 0.85),
            height - margin * 0.8,
            str(rng.randint(1, 999)),
            FontBook.at(body, size),
            fill,
        )
    return canvas


def receipt(rng: random.Random, fonts: FontBook, width: int, height: int) -> Canvas:
    """A till receipt: a narrow strip of items with prices at the right."""
    ground = paper(rng)
    canvas = Canvas.blank(width, height, ground)
    script = pick_script(rng)
    font_file = fonts.pick(rng, script)
    size = max(9, int(width * rng.uniform(0.032, 0.06)))
    font, leading = FontBook.at(font_file, size), size * rng.uniform(1.15, 1.7)
    fill = ink(rng, ground)
    y, margin = size * rng.uniform(0.5, 2), width * rng.uniform(0.03, 0.09)
    for _ in range(rng.randint(1, 4)):
        big = FontBook.at(font_file, int(size * rng.choice((1, 1, 1.3, 1.8))))
        text = words(rng, script, rng.randint(1, 4))
        long = big.getlength(" ".join(text))
        canvas.line(max(margin, (width - long) / 2), y, text, big, fill, width - 2)
        y += leading * 1.2
    while y < height - leading * 2:
        kind = rng.random()
        if kind < 0.10:
            dash = rng.choice("-=*_.")
            canvas.draw.text((margin, y), dash * int((width - 2 * margin) / font.getlength(dash)), font=font, fill=fill)
        elif kind < 0.18:
            for x in range(int(margin), int(width * 0.8), 3):  # a bar code: stripes are not text
                if rng.random() < 0.5:
                    canvas.draw.rectangle((x, y, x + rng.randint(0, 2), y + leading * 2), fill=fill)
            y += leading * 2
        else:
            price = rng.choice((number(rng), f"{rng.uniform(0.2, 300):.2f}"))
            right = width - margin - font.getlength(price)
            canvas.line(margin, y, words(rng, script, rng.randint(1, 4)), font, fill, right - size)
            if rng.random() < 0.85:
                canvas.word(right, y, price, font, fill)
        y += leading
    return canvas
