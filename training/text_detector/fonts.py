"""The fonts of the corpus: which file can draw which script."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


@lru_cache(maxsize=600)
def _load(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


class FontBook:
    """Fonts by script, as the corpus index (`fonts/index.json`: file -> scripts) lists them."""

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Args:
            folder: holds `index.json` and the font files.
        """
        index: dict[str, list[str]] = json.loads((folder / "index.json").read_text())
        self._by_script: dict[str, list[str]] = {}
        for name, scripts in sorted(index.items()):
            for script in scripts:
                self._by_script.setdefault(script, []).append(str(folder / name))

    def pick(self, rng: random.Random, script: str) -> str:
        """A font file that draws `script`."""
        return rng.choice(self._by_script[script])

    @staticmethod
    def at(path: str, size_px: int) -> ImageFont.FreeTypeFont:
        """The font at an em size in pixels (cached)."""
        return _load(path, max(6, int(size_px)))
