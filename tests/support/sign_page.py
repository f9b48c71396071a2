"""A page of words, banners and stamps, and the detector that tells them apart: a class for each kind of model."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sluiceway_detection.types import ImageBgr, Region

__all__ = ["CLASSES", "Sign", "SignDetector", "draw"]

CLASSES = ("word", "banner", "stamp")
# Paper and ink have none, paint has some.
LEAST_COLOUR = 60
# Letters that are closer than this are one word.
REACH_PX = 15
ROW_PX, COLUMN_PX, MARGIN_PX = 70, 220, 20
STAMP_PX, BANNER_PX = (40, 40), (40, 120)


@dataclass(frozen=True)
class Sign:
    """One thing on the page: a word, or a painted patch. A stamp has two colours, side by side; a banner has one."""

    kind: str
    text: str = ""
    left_rgb: tuple[int, int, int] = (0, 0, 0)
    right_rgb: tuple[int, int, int] = (0, 0, 0)


def draw(signs: list[Sign], columns: int = 3) -> bytes:
    """The page as a PNG file; signs in reading order."""
    rows = -(-len(signs) // columns)
    page = Image.new("RGB", (columns * COLUMN_PX + MARGIN_PX, rows * ROW_PX + MARGIN_PX), "white")
    ink = ImageDraw.Draw(page)
    font = ImageFont.load_default(30)
    for index, sign in enumerate(signs):
        x, y = MARGIN_PX + index % columns * COLUMN_PX, MARGIN_PX + index // columns * ROW_PX
        if sign.kind == "word":
            ink.text((x, y), sign.text, fill="black", font=font)
            continue
        height, width = STAMP_PX if sign.kind == "stamp" else BANNER_PX
        ink.rectangle((x, y, x + width // 2 - 1, y + height - 1), fill=sign.left_rgb)
        ink.rectangle((x + width // 2, y, x + width - 1, y + height - 1), fill=sign.right_rgb)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


class SignDetector:
    """Finds paint by its colour and words by their ink; see `CLASSES`."""

    classes = CLASSES

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def __call__(self, batch: list[ImageBgr]) -> list[list[Region]]:
        """Every confidence is 0.9."""
        return [self._find(image) for image in batch]

    def _find(self, image: ImageBgr) -> list[Region]:
        painted = (image.max(axis=2).astype(int) - image.min(axis=2) >= LEAST_COLOUR).astype(np.uint8)
        inked = ((image.max(axis=2) < 128) & (painted == 0)).astype(np.uint8)
        words = cv2.dilate(inked, np.ones((3, REACH_PX), np.uint8))
        patches = [
            Region((x, y, x + width, y + height), CLASSES.index("banner" if width > 2 * height else "stamp"), 0.9)
            for x, y, width, height in _boxes(painted)
        ]
        # A little air around the ink, as a reader is used to.
        return patches + [
            Region((max(0, x), max(0, y - 4), x + width, y + height + 4), CLASSES.index("word"), 0.9)
            for x, y, width, height in _boxes(words)
        ]


def _boxes(mask: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of what hangs together."""
    _, _, found, _ = cv2.connectedComponentsWithStats(mask)
    return [(x, y, width, height) for x, y, width, height, _ in found[1:].tolist()]
