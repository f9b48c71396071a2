"""A picture and what is written in it, and how both lie on the disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "Picture", "Stored", "Word"]

ImageRgb = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Word:
    """One word as drawn, and its box in pixels (left, top, right, bottom): the extent of its ink."""

    text: str
    box: Box


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        lines: words by line, in reading order.
        upright: whether boxes are where the words are: false once the picture was bent.
        jpeg_quality: stored so; PNG where there is none.
    """

    pixels: ImageRgb
    lines: tuple[tuple[Word, ...], ...]
    upright: bool = True
    jpeg_quality: int | None = None

    def save(self, stem: Path) -> Stored:
        """Write the file and, beside it, what is written in it."""
        path = stem.with_suffix(".png" if self.jpeg_quality is None else ".jpg")
        stem.parent.mkdir(parents=True, exist_ok=True)
        if self.jpeg_quality is None:
            Image.fromarray(self.pixels).save(path, compress_level=3)
        else:
            Image.fromarray(self.pixels).save(path, quality=self.jpeg_quality)
        boxes = [[word.box for word in line] for line in self.lines] if self.upright else []
        stored = Stored(path, tuple(" ".join(word.text for word in line) for line in self.lines), boxes)
        truth = {"lines": stored.lines, "boxes": boxes}
        stem.with_suffix(".json").write_text(json.dumps(truth, ensure_ascii=False) + "\n", encoding="utf-8")
        return stored


@dataclass(frozen=True)
class Stored:
    """A picture on the disk.

    Attributes:
        path: the file that readers are given.
        lines: what is written in it, in reading order.
        boxes: of the words, by line, where they are known.
    """

    path: Path
    lines: tuple[str, ...]
    boxes: list[list[Box]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Stored:
        """What `Picture.save` wrote."""
        truth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        boxes = [[(box[0], box[1], box[2], box[3]) for box in line] for line in truth["boxes"]]
        return cls(path, tuple(truth["lines"]), boxes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()
