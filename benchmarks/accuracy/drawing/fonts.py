"""Fonts by what they are used for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

__all__ = ["Font", "Fonts"]

Font = ImageFont.FreeTypeFont


class Fonts:
    """Font files by role: `sans`, `serif`, `mono`, `narrow`, `heavy`, `east` (Chinese and Japanese).

    A role without a file has Pillow's own font, which is enough to test how pictures are made.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)

    def at(self, role: str, size_px: float) -> Font:
        """The font of a role with this many pixels to an em."""
        return _load(self._files.get(role), round(size_px))


@lru_cache(maxsize=200)
def _load(path: Path | None, size_px: int) -> Font:
    if path is None:
        found = ImageFont.load_default(size_px)
        assert isinstance(found, ImageFont.FreeTypeFont)
        return found
    # Basic layout: what the other one does depends on libraries of the machine.
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
