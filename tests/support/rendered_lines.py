"""Lines of text to read, the same ones everywhere: words, numbers and punctuation that every dictionary holds."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["render", "rendered_lines"]

TEXT = """
sluice gate river water canal lock weir dam lake bridge engine pump valve level meter station north south gauge flow
open closed daily report table figure section page total amount order number date price paid invoice account street
city country house office market school library window paper letter copper silver coffee bread orange winter summer
morning evening yesterday measure length height weight speed between without through another because during question
answer simple common quick brown jumps lazy over under every region segmentation recognition detection boundary
Sluiceway Thames Rhine Danube Amsterdam London Vienna Chapter Appendix Monday Thursday April October TOTAL NOTE OPEN
EXIT WARNING PLEASE RETURN ISBN VAT NO. Mr. Dr. Inc. Ltd.
"""
WORDS = tuple(TEXT.split())
NUMBERS = (
    "0",
    "7",
    "42",
    "108",
    "1,299.00",
    "3.14",
    "2026",
    "50%",
    "#12",
    "1/2",
    "24-30",
    "12:45",
    "(1)",
    "+44",
    "$9.50",
)
# Pillow's own font, which is the same on every machine: as it is, narrow, wide, slanted; as (stretch, slant).
STYLES = ((1.0, 0.0), (0.85, 0.0), (1.15, 0.0), (1.0, 0.2))
# Of the size: an ordinary gap between words. Narrower ones are read as a matter of taste.
GAP = 0.35
SIZES_PX = (24, 28, 32, 36)
SHADES = ((0, 255), (40, 210), (230, 30))


def render(text: str, size: int = 32, ink: int = 0, paper: int = 255) -> np.ndarray:
    """One line in Pillow's font, uint8 [48, w, 3]."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (round(right - left) + 12, 48), paper)
    ImageDraw.Draw(image).text((6 - left, (48 - (bottom - top)) / 2 - top), text, fill=ink, font=font)
    return np.repeat(np.asarray(image)[:, :, None], 3, axis=2)


def rendered_lines(count: int = 300, seed: int = 11) -> list[tuple[str, np.ndarray]]:
    """Lines of one to six words in several styles, sizes and shades, as (text, crop)."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        words = [_word(chance) for _ in range(chance.randint(1, 6))]
        size, (ink, paper) = chance.choice(SIZES_PX), chance.choice(SHADES)
        line = _spaced(words, size, ink, paper)
        made.append((" ".join(words), _styled(line, *STYLES[number % len(STYLES)], paper)))
    return made


def _word(chance: random.Random) -> str:
    if chance.random() < 0.2:
        return chance.choice(NUMBERS)
    word = chance.choice(WORDS)
    return word + chance.choice(",.:;!?") if chance.random() < 0.15 else word


def _spaced(words: list[str], size: int, ink: int, paper: int) -> Image.Image:
    font = ImageFont.load_default(size)
    widths = [font.getlength(word) for word in words]
    image = Image.new("L", (round(sum(widths) + GAP * size * (len(words) - 1)) + 20, 48), paper)
    draw, x = ImageDraw.Draw(image), 10.0
    for word, width in zip(words, widths, strict=True):
        draw.text((x, 24 + 0.35 * size), word, fill=ink, font=font, anchor="ls")
        x += width + GAP * size
    return image


def _styled(line: Image.Image, stretch: float, slant: float, paper: int) -> np.ndarray:
    line = line.resize((round(line.width * stretch), line.height), Image.Resampling.BILINEAR)
    shear = (1, slant, -24 * slant, 0, 1, 0)
    line = line.transform(line.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR, fillcolor=paper)
    return np.repeat(np.asarray(line)[:, :, None], 3, axis=2)
