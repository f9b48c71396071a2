"""Layouts that are not paper: signs and labels over photographs, and screens."""

from __future__ import annotations

import random

from PIL import Image

from .canvas import Canvas, Colour
from .documents import ink
from .fonts import FontBook
from .wording import number, pick_script, words


def _colour(rng: random.Random) -> Colour:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def sign(rng: random.Random, fonts: FontBook, width: int, height: int) -> Canvas:
    """A board or label: a few large words on a plain ground, framed or not."""
    ground = _colour(rng)
    canvas = Canvas.blank(width, height, ground)
    script = pick_script(rng)
    font_file, fill = fonts.pick(rng, script), ink(rng, ground)
    if rng.random() < 0.5:
        inset = rng.randint(2, max(3, height // 12))
        canvas.draw.rectangle(
            (inset, inset, width - inset, height - inset), outline=ink(rng, ground), width=rng.randint(1, 5)
        )
    y = height * rng.uniform(0.04, 0.15)
    while y < height * 0.9:
        size = max(9, int(height * rng.uniform(0.07, 0.42)))
        if y + size * 1.2 > height:
            break
        font = FontBook.at(font_file, size)
        text = words(rng, script, rng.randint(1, 4))
        long = font.getlength(" ".join(text))
        canvas.line(max(4, (width - long) * rng.choice((0.1, 0.5, 0.5, 0.8))), y, text, font, fill, width - 3)
        y += size * rng.uniform(1.2, 1.6)
    return canvas


def overlay(rng: random.Random, fonts: FontBook, photo: Image.Image) -> Canvas:
    """Words straight on a photograph: captions, shop names, watermarks, subtitles."""
    canvas = Canvas(photo.convert("RGB"))
    width, height = photo.size
    for _ in range(rng.randint(0, 9)):
        script = pick_script(rng)
        font_file = fonts.pick(rng, script)
        size = int(rng.triangular(10, 120, 22) * width / 800) + 2
        font = FontBook.at(font_file, size)
        x, y = rng.uniform(-0.05, 0.8) * width, rng.uniform(0, 0.95) * height
        # The ground under the words decides the ink; a busy ground leaves some words hard to see, as in life.
        spot = (
            photo.crop((int(max(0, x)), int(y), int(max(0, x)) + 40, int(y) + size))
            .resize((1, 1))
            .convert("RGB")
            .getpixel((0, 0))
        )
        fill = ink(rng, spot)  # type: ignore[arg-type]
        stroke = rng.choice((0, 0, 0, 1, 2))
        for line in range(rng.choice((1, 1, 1, 2, 3, 5))):
            at = x
            for text in words(rng, script, rng.randint(1, 5)):
                at += canvas.word(
                    at, y + line * size * 1.3, text, font, fill, stroke if size > 16 else 0
                ) + font.getlength(" ")
                if at > width:
                    break
    return canvas


def _buttons(  # noqa: PLR0917  a place, a look and a text
    rng: random.Random,
    canvas: Canvas,
    fonts_at: tuple[str, int],
    script: str,
    box: tuple[int, int, int, int],
    ground: Colour,
) -> None:
    """A row of buttons or a menu bar in `box`."""
    left, top, right, bottom = box
    font = FontBook.at(*fonts_at)
    fill, x = ink(rng, ground), left + rng.randint(4, 14)
    face, framed = _colour(rng), rng.random() < 0.35
    while x < right - 40:
        text = words(rng, script, rng.randint(1, 2))
        long = font.getlength(" ".join(text))
        if x + long + 12 > right:
            break
        y = top + (bottom - top - fonts_at[1]) * 0.4
        if framed:
            canvas.draw.rounded_rectangle((x - 6, top + 2, x + long + 6, bottom - 2), 4, fill=face, outline=fill)
        canvas.line(x, y, text, font, ink(rng, face) if framed else fill, right)
        x += int(long) + rng.randint(14, 44)


def _icons(rng: random.Random, canvas: Canvas, box: tuple[int, int, int, int]) -> None:
    """A toolbar of things that are not text."""
    left, top, right, bottom = box
    side = bottom - top - 6
    for x in range(left + 4, right - side, side + rng.randint(4, 12)):
        shape = rng.choice((canvas.draw.ellipse, canvas.draw.rectangle, canvas.draw.line))
        shape((x, top + 3, x + side, top + 3 + side), fill=_colour(rng))


def screen(rng: random.Random, fonts: FontBook, width: int, height: int, photo: Image.Image) -> Canvas:
    """A program's window: title, menus, toolbars, a tree or list, forms, a text or code pane, a status line."""
    dark = rng.random() < 0.35
    ground: Colour = (rng.randint(18, 60),) * 3 if dark else (rng.randint(225, 255),) * 3
    canvas = Canvas.blank(width, height, ground)
    script = pick_script(rng)
    font_file = fonts.pick(rng, script)
    size = round(rng.triangular(9, 22, 12))
    bar = int(size * rng.uniform(1.7, 2.6))
    y = 0
    if rng.random() < 0.7:
        title: Colour = _colour(rng) if rng.random() < 0.5 else ground
        canvas.draw.rectangle((0, 0, width, bar), fill=title)
        canvas.line(
            rng.uniform(0.01, 0.5) * width,
            (bar - size) * 0.4,
            words(rng, script, rng.randint(1, 5)),
            FontBook.at(font_file, size),
            ink(rng, title),
            width - 60,
        )
        y += bar
    for draw_bar in rng.sample(("menu", "icons", "menu"), rng.randint(1, 3)):
        if draw_bar == "menu":
            _buttons(rng, canvas, (font_file, size), script, (0, y, width, y + bar), ground)
        else:
            _icons(rng, canvas, (0, y, width, y + bar))
        y += bar
        if rng.random() < 0.5:
            canvas.draw.line((0, y, width, y), fill=ink(rng, ground))
    bottom = height - (bar if rng.random() < 0.6 else 0)
    if bottom < height:
        _buttons(rng, canvas, (font_file, max(8, size - 1)), script, (0, bottom, width, height), ground)
    split = int(width * rng.choice((0, 0.2, 0.3, 0.5)))
    if split > 80:
        _pane(rng, canvas, script, font_file, size, (0, y, split, bottom), ground, photo, "tree")
        canvas.draw.line((split, y, split, bottom), fill=ink(rng, ground))
    _pane(
        rng,
        canvas,
        script,
        font_file,
        size,
        (split, y, width, bottom),
        ground,
        photo,
        rng.choice(("text", "code", "form", "photo", "tree", "grid")),
    )
    return canvas


def _pane(  # noqa: PLR0917  likewise
    rng: random.Random,
    canvas: Canvas,
    script: str,
    font_file: str,
    size: int,
    box: tuple[int, int, int, int],
    ground: Colour,
    photo: Image.Image,
    kind: str,
) -> None:
    left, top, right, bottom = box
    if right - left < 60 or bottom - top < 60:
        return
    font, fill = FontBook.at(font_file, size), ink(rng, ground)
    if kind == "photo":
        canvas.image.paste(photo.resize((right - left, bottom - top)), (left, top))
        return
    if kind in ("text", "code") and rng.random() < 0.5:
        plain: Colour = (255, 255, 255) if sum(ground) > 384 else (8, 8, 12)
        canvas.draw.rectangle((left + 3, top + 3, right - 3, bottom - 3), fill=plain)
    leading = size * rng.uniform(1.2, 1.9)
    y, indent = top + 6.0, 0
    while y + leading < bottom:
        x = left + 8.0
        if kind == "code":
            indent = max(0, min(6, indent + rng.choice((-1, 0, 0, 1))))
            if rng.random() < 0.15:
                y += leading
                continue
            x += indent * size * 1.4
            tint = rng.choice((fill, fill, ink(rng, ground)))
            canvas.line(x, y, words(rng, "latin", rng.randint(1, 9)), font, tint, right - 6)
        elif kind == "tree":
            indent = max(0, min(4, indent + rng.choice((-1, 0, 0, 1))))
            x += indent * size
            if rng.random() < 0.6:
                canvas.draw.rectangle((x, y + 1, x + size - 2, y + size - 1), fill=_colour(rng))
            canvas.line(x + size * 1.3, y, words(rng, script, rng.randint(1, 3)), font, fill, right - 4)
        elif kind == "form":
            middle = left + (right - left) * 0.4
            canvas.line(x, y, words(rng, script, rng.randint(1, 3)), font, fill, middle - 6)
            if rng.random() < 0.7:
                canvas.draw.rectangle(
                    (middle, y - 2, right - 12, y + size * 1.3), fill=(255, 255, 255), outline=(120, 120, 120)
                )
                canvas.line(
                    middle + 5,
                    y,
                    words(rng, script, rng.randint(0, 3)) or [number(rng)],
                    font,
                    (20, 20, 20),
                    right - 14,
                )
            y += leading * rng.uniform(0.3, 0.9)
        elif kind == "grid":
            step = (right - left) // rng.randint(3, 7)
            for cell in range(left, right - step, step):
                canvas.line(
                    cell + 4,
                    y,
                    [number(rng)] if rng.random() < 0.5 else words(rng, script, rng.randint(1, 2)),
                    font,
                    fill,
                    cell + step - 3,
                )
            canvas.draw.line((left, y + leading * 0.9, right, y + leading * 0.9), fill=(150, 150, 150))
        else:
            canvas.line(x, y, words(rng, script, rng.randint(3, 30)), font, fill, right - 8)
        y += leading
