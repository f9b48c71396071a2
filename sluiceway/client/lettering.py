"""Writing in any script that the machine has a font for: each character in the first font that knows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

__all__ = ["Lettering", "find_fonts"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Latin, Greek and Cyrillic first, as these look best in them, then Chinese, Japanese and Korean. Some of the latter
# have no Latin letters at all, so no single font will do.
FONT_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "uming.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "/System/Library/Fonts")
# In no font: what a font shows for it is what it shows for everything that it does not know.
_NONCHARACTER = "\uffff"


@cache
def find_fonts() -> tuple[str, ...]:
    """Find font files on this machine, best first; may be none."""
    folders = [Path(name) for name in FONT_FOLDERS]
    with contextlib.suppress(RuntimeError):  # a user that this machine does not know
        folders += [Path.home() / ".fonts", Path.home() / ".local/share/fonts"]
    found = {
        path.name: path
        for folder in folders
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.suffix.lower() in (".ttf", ".ttc", ".otf")
    }
    return tuple(str(found[name]) for name in FONT_NAMES if name in found)


@cache
def _open(path: str | None, size_px: int) -> Font:
    return ImageFont.truetype(path, size_px) if path else ImageFont.load_default(size_px)


@cache
def _knows(path: str | None, character: str) -> bool:
    font = _open(path, 16)
    if character.isspace():
        return True
    return bytes(font.getmask(character)) != bytes(font.getmask(_NONCHARACTER))


class Lettering:
    """One size of writing.

    Args:
        size_px: of the letters.
        font: a file to prefer over those that are found.
    """

    def __init__(self, size_px: int, font: str | None = None) -> None:
        # Pillow's own font is always there, and Latin.
        self._paths = (*((font,) if font else ()), *find_fonts(), None)
        self._size_px = size_px

    @property
    def ascent_px(self) -> int:
        """Height above the baseline that a line needs."""
        return round(self._size_px * 0.95)

    @property
    def height_px(self) -> int:
        """Height that a line needs in all."""
        return self.ascent_px + round(self._size_px * 0.25)

    def length_px(self, text: str) -> float:
        """How wide a text becomes."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def write(self, pen: ImageDraw.ImageDraw, left: float, baseline: float, text: str, fill: str) -> None:
        """Write one line of text."""
        for font, run in self._runs(text):
            pen.text((left, baseline), run, font=font, fill=fill, anchor="ls")
            left += font.getlength(run)

    def _runs(self, text: str) -> Iterator[tuple[Font, str]]:
        """Cut a text into the longest pieces that one font can write."""
        start, current = 0, None
        paths = [next((path for path in self._paths if _knows(path, item)), self._paths[0]) for item in text]
        for index, path in enumerate(paths):
            if index and path != current:
                yield _open(current, self._size_px), text[start:index]
                start = index
            current = path
        if text:
            yield _open(current, self._size_px), text[start:]
