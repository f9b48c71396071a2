"""A sheet to write on, which remembers what was written where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.accuracy.drawing.fonts import Font
from benchmarks.accuracy.picture import Picture, Word

__all__ = ["Colour", "Sheet"]

Colour = tuple[int, int, int]
INK: Colour = (25, 25, 28)
PAPER: Colour = (250, 250, 248)
# Stops and commas of Chinese and Japanese, and the sign of a long vowel.
_CORNER, _LONG = "\u3002\u3001\uff0c", "\u30fc"


class Sheet:
    """Lines are read in the order in which they are written."""

    def __init__(self, width: int, height: int, paper: Colour = PAPER) -> None:
        self._image = Image.new("RGB", (width, height), paper)
        self.pen = ImageDraw.Draw(self._image)
        self.lines: list[tuple[Word, ...]] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._image.size

    def line(
        self,
        text: str | Sequence[str],
        left: float,
        base: float,
        font: Font,
        ink: Colour = INK,
        *,
        gap: float | None = None,
    ) -> float:
        """Write a line.

        Args:
            text: its words.
            left: where it begins.
            base: of its letters, from the top of the sheet.
            font: to write with.
            ink: colour.
            gap: between words in pixels; that of the font where there is none.

        Returns:
            Where it ends.
        """
        words = text.split() if isinstance(text, str) else text
        space = font.getlength(" ") if gap is None else gap
        x, made = left, []
        for word in words:
            self.pen.text((x, base), word, fill=ink, font=font, anchor="ls")
            made.append(Word(word, self.pen.textbbox((x, base), word, font=font, anchor="ls")))
            x += font.getlength(word) + space
        self.lines.append(tuple(made))
        return x - space

    def right(self, text: str, right: float, base: float, font: Font, ink: Colour = INK) -> None:
        """Write a line that ends there."""
        self.line(text, right - font.getlength(text), base, font, ink)

    def centre(self, text: str, middle: float, base: float, font: Font, ink: Colour = INK) -> None:
        """Write a line around there."""
        self.line(text, middle - font.getlength(text) / 2, base, font, ink)

    def column(
        self, words: Sequence[str], box: tuple[float, float, float, float], font: Font, *, leading: float
    ) -> int:
        """Fill a column with words.

        Args:
            words: as many as there is room for are written.
            box: of the column: left, top, right, bottom.
            font: to write with.
            leading: distance of lines, in ems.

        Returns:
            How many words were written.
        """
        left, top, right, bottom = box
        space, step = font.getlength(" "), font.size * leading
        used, base = 0, top + font.size
        while base <= bottom and used < len(words):
            row, width = [words[used]], font.getlength(words[used])
            while used + len(row) < len(words):
                further = font.getlength(words[used + len(row)]) + space
                if left + width + further > right:
                    break
                width += further
                row.append(words[used + len(row)])
            self.line(row, left, base, font)
            used += len(row)
            base += step
        return used

    def down(self, text: str, middle: float, top: float, font: Font, ink: Colour = INK) -> float:
        """Write characters below each other: a column of Chinese or Japanese. Where it ends is returned."""
        made = []
        for row, character in enumerate(text):
            y = top + row * font.size * 1.06
            place = (middle, y + font.size / 2)
            if character in _CORNER:  # in the upper right corner of its square
                place = (middle + font.size * 0.55, y - font.size * 0.05)
            elif character == _LONG:
                self._bar(middle, y, font, ink)
                made.append(Word(character, (middle - 2, y, middle + 2, y + font.size)))
                continue
            self.pen.text(place, character, fill=ink, font=font, anchor="mm")
            made.append(Word(character, self.pen.textbbox(place, character, font=font, anchor="mm")))
        self.lines.append(tuple(made))
        return top + len(text) * font.size * 1.06

    def turned(
        self, text: str, corner: tuple[float, float], font: Font, degrees: int, ink: Colour = INK
    ) -> tuple[float, float]:
        """Write a line that is turned clockwise by 90, 180 or 270 degrees, into a box that begins there; its size."""
        left, top = corner
        width, height = round(font.getlength(text)) + 4, round(font.size * 1.3)
        patch = Image.new("L", (width, height), 0)
        ImageDraw.Draw(patch).text((2, font.size), text, fill=255, font=font, anchor="ls")
        patch = patch.rotate(-degrees, expand=True)
        self._image.paste(Image.new("RGB", patch.size, ink), (round(left), round(top)), patch)
        box = (left, top, left + patch.width, top + patch.height)
        self.lines.append(tuple(Word(word, box) for word in text.split()))
        return patch.size

    def picture(self, *, upright: bool = True, jpeg_quality: int | None = None) -> Picture:
        """What is there now."""
        return Picture(np.array(self._image), tuple(self.lines), upright, jpeg_quality)

    def _bar(self, middle: float, y: float, font: Font, ink: Colour) -> None:
        """The sign of a long vowel, which stands upright in a column."""
        half = max(1.0, font.size * 0.035)
        self.pen.rectangle((middle - half, y + font.size * 0.1, middle + half, y + font.size * 0.9), fill=ink)
