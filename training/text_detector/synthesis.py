"""Synthetic labelled pictures, a pure function of the seed and the corpus.

python -m training.text_detector.synthesis --corpus corpus --out sheet.png    # a contact sheet to look at
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .canvas import Canvas
from .degradation import boxes_of, camera, light, texture, warp_onto
from .documents import page, receipt
from .fonts import FontBook
from .surfaces import overlay, screen, sign

SIDE_PX = 832
"""Pictures are square and larger than the network's 640, so that random views of them differ in scale."""


@dataclass(frozen=True)
class Sample:
    """A picture and its words.

    Attributes:
        image_rgb: uint8 [SIDE_PX, SIDE_PX, 3].
        boxes_xyxy_px: float32 [N, 4].
        texts: the N words.
    """

    image_rgb: np.ndarray
    boxes_xyxy_px: np.ndarray
    texts: list[str]


class Synthesiser:
    """Draws samples; holds the fonts and the photographs of a corpus."""

    def __init__(self, corpus: Path) -> None:
        """Open a corpus folder made by `corpus.py`."""
        self._fonts = FontBook(corpus / "fonts")
        self._photos = sorted((corpus / "photos").glob("*.webp"))
        self._open: dict[Path, Image.Image] = {}

    def _photo(self, rng: random.Random, width: int, height: int) -> Image.Image:
        """A random crop of a photograph, or a texture."""
        if rng.random() < 0.25 or not self._photos:
            return Image.fromarray(texture(rng, height, width))
        path = rng.choice(self._photos)
        if path not in self._open:
            self._open[path] = Image.open(path).convert("RGB")
        photo = self._open[path]
        share = rng.uniform(0.35, 1.0)
        w, h = max(2, int(photo.width * share)), max(2, int(photo.height * share))
        x, y = rng.randint(0, photo.width - w), rng.randint(0, photo.height - h)
        return photo.crop((x, y, x + w, y + h)).resize((width, height), Image.Resampling.BILINEAR)

    def sample(self, seed: int) -> Sample:
        """Draw the sample of a seed: the same one each time."""
        rng = random.Random(seed)
        side = SIDE_PX
        kind = rng.choices(("page", "receipt", "sign", "overlay", "screen", "collage"), (30, 10, 14, 12, 30, 4))[0]
        if kind == "overlay":
            canvas = overlay(rng, self._fonts, self._photo(rng, side, side))
            image, quads = canvas.array(), canvas.quads()
        elif kind in ("page", "screen", "receipt") and rng.random() < (
            0.45 if kind == "page" else 0.75 if kind == "screen" else 0.1
        ):
            image, quads = self._flat(rng, self._drawn(rng, kind, side, side))
            canvas_texts = self._last.texts
            return self._finish(rng, image, quads, canvas_texts)
        else:
            canvas = self._drawn(rng, kind, side, side)
            ground = np.asarray(self._photo(rng, side, side))
            image, quads = canvas.array(), canvas.quads()
            if rng.random() < 0.3:
                image = light(rng, image)
            image, quads = warp_onto(rng, image, quads, ground)
            texts = list(canvas.texts)
            for _ in range(rng.choice((0, 0, 1, 2)) if kind == "sign" else 0):
                more = self._drawn(rng, "sign", side, side)
                image, others = warp_onto(rng, more.array(), more.quads(), image)
                hidden = _covered(quads, others)
                quads, texts = quads[~hidden], [text for text, gone in zip(texts, hidden, strict=True) if not gone]
                quads, texts = np.concatenate([quads, others]), texts + more.texts
            return self._finish(rng, image, quads, texts)
        return self._finish(rng, image, quads, canvas.texts)

    def _flat(self, rng: random.Random, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """A scan or a screenshot: no background, at most a slight turn."""
        self._last = canvas
        image, quads = canvas.array(), canvas.quads()
        scale = rng.uniform(0.97, 1.0) * SIDE_PX / max(image.shape[:2]) if rng.random() < 0.7 else rng.uniform(0.6, 1.3)
        centre = (image.shape[1] / 2, image.shape[0] / 2)
        matrix = cv2.getRotationMatrix2D(centre, rng.choice((0, 0, 0, rng.gauss(0, 1.5))), scale)
        matrix[:, 2] += SIDE_PX / 2 - np.array(centre)
        shade = rng.choice((114, 114, 255, 0, rng.randint(0, 255)))
        if scale < 0.7:
            image = cv2.GaussianBlur(image, (0, 0), 0.4)
        out = cv2.warpAffine(
            image, matrix, (SIDE_PX, SIDE_PX), None, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, (shade,) * 3
        )
        return out, cv2.transform(quads.reshape(1, -1, 2), matrix).reshape(-1, 4, 2).astype(np.float32) if len(
            quads
        ) else quads

    def _drawn(self, rng: random.Random, kind: str, width: int, height: int) -> Canvas:
        if kind == "receipt":
            return receipt(rng, self._fonts, rng.randint(260, 520), rng.randint(500, 1000))
        if kind == "sign":
            return sign(rng, self._fonts, rng.randint(180, 800), rng.randint(90, 500))
        if kind == "screen":
            return screen(
                rng, self._fonts, rng.randint(380, 1250), rng.randint(280, 900), self._photo(rng, width, height)
            )
        if kind == "collage":
            canvas = Canvas.blank(width, height, (rng.randint(0, 255),) * 3)
            for x, y in ((0, 0), (width // 2, 0), (0, height // 2), (width // 2, height // 2)):
                canvas.paste(self._drawn_fitting(rng, width // 2, height // 2), x, y)
            return canvas
        return page(rng, self._fonts, rng.randint(560, 1000), rng.randint(620, 1250))

    def _drawn_fitting(self, rng: random.Random, width: int, height: int) -> Canvas:
        if rng.random() < 0.5:
            return screen(rng, self._fonts, width, height, self._photo(rng, width, height))
        return page(rng, self._fonts, width, height) if rng.random() < 0.6 else sign(rng, self._fonts, width, height)

    @staticmethod
    def _finish(rng: random.Random, image: np.ndarray, quads: np.ndarray, texts: list[str]) -> Sample:
        if rng.random() < 0.18:
            image = light(rng, image)
        image = camera(rng, image)
        boxes = boxes_of(quads, image.shape[1], image.shape[0])
        kept = boxes[:, 2] > boxes[:, 0]
        return Sample(image, boxes[kept], [text for text, keep in zip(texts, kept, strict=True) if keep])


def _covered(quads: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Which words a later picture hides: those whose centre lies in the hull of its words. bool [N]."""
    if not len(quads) or not len(over):
        return np.zeros(len(quads), bool)
    hull = cv2.convexHull(over.reshape(-1, 2))
    centres = quads.mean(1)
    return np.array([cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in centres])


def main() -> None:
    """Write a contact sheet with boxes drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=12)
    arguments = parser.parse_args()
    drawer, tiles = Synthesiser(arguments.corpus), []
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        sample = drawer.sample(seed)
        picture = sample.image_rgb.copy()
        for x0, y0, x1, y1 in sample.boxes_xyxy_px.astype(int):
            cv2.rectangle(picture, (int(x0), int(y0)), (int(x1), int(y1)), (255, 0, 0), 1)
        tiles.append(picture)
    rows = [np.concatenate(tiles[i : i + 4], 1) for i in range(0, len(tiles) - len(tiles) % 4, 4)]
    Image.fromarray(np.concatenate(rows)).save(arguments.out)


if __name__ == "__main__":
    main()
