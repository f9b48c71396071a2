"""A picture being drawn, with the exact box of every word on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


@dataclass
class Canvas:
    """An RGB image and its words.

    Attributes:
        image: PIL RGB image, drawn on in place.
        quads_px: one [4, 2] list of corners a word, clockwise from the top left, in pixels of `image`.
        texts: the words, in the order of `quads_px`.
    """

    image: Image.Image
    quads_px: list[list[tuple[float, float]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    @classmethod
    def blank(cls, width_px: int, height_px: int, colour: Colour) -> Canvas:
        """A canvas of one colour."""
        return cls(Image.new("RGB", (width_px, height_px), colour))

    def word(  # noqa: PLR0917  like PIL's text
        self, x: float, y: float, text: str, font: ImageFont.FreeTypeFont, fill: Colour, stroke: int = 0
    ) -> float:
        """Draw a word with the top of its line at (x, y) and record its ink box.

        Returns:
            The advance in pixels.
        """
        left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
        if right <= left or bottom <= top:  # nothing visible: no box, or the labels would hold empty ones
            return font.getlength(text)
        self.draw.text((x, y), text, font=font, fill=fill, stroke_width=stroke)
        x0, y0, x1, y1 = x + left, y + top, x + right, y + bottom
        width, height = self.image.size
        # A word cut by the edge keeps its box only when most of it is still there.
        seen = max(0.0, min(x1, width) - max(x0, 0)) * max(0.0, min(y1, height) - max(y0, 0))
        if seen > 0.5 * (x1 - x0) * (y1 - y0):
            x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
            self.quads_px.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
            self.texts.append(text)
        return font.getlength(text)

    def line(  # noqa: PLR0917  like PIL's text
        self,
        x: float,
        y: float,
        words: list[str],
        font: ImageFont.FreeTypeFont,
        fill: Colour,
        right_px: float,
        gap: float = 1.0,
    ) -> int:
        """Draw words from left to right until `right_px`; returns how many fitted."""
        space = max(2.0, font.getlength(" ") * gap)
        for count, text in enumerate(words):
            if x + font.getlength(text) > right_px:
                return count
            x += self.word(x, y, text, font, fill) + space
        return len(words)

    def paste(self, other: Canvas, x: int, y: int) -> None:
        """Put another canvas on this one, words and all."""
        self.image.paste(other.image, (x, y))
        for quad, text in zip(other.quads_px, other.texts, strict=True):
            self.quads_px.append([(px + x, py + y) for px, py in quad])
            self.texts.append(text)

    def array(self) -> np.ndarray:
        """The image as uint8 [H, W, 3], RGB, and contiguous."""
        return np.ascontiguousarray(np.asarray(self.image))

    def quads(self) -> np.ndarray:
        """The words' corners as float32 [N, 4, 2], pixels."""
        return np.asarray(self.quads_px, np.float32).reshape(-1, 4, 2)
