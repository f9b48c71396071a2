"""Crops of real pages for the recognition benchmark: found by text-nano once, kept in one file.

    python benchmarks/support/page_crops.py [--page FILE ...] [--to out/page-crops.npz]

A machine that only measures then needs neither a detector nor the pages. They are the sample page.png and two pages of
prose that are rendered here, in two sizes; `--page` puts scans of one's own in the place of the latter.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_FILE", "fitted", "load", "make"]

DEFAULT_FILE = Path("out/page-crops.npz")
SAMPLES = ("page.png",)
RENDERED_PX = (22, 34)
HEIGHT = 48
Crop = NDArray[np.uint8]
PROSE = (
    "A sluiceway is a channel that carries water past a gate. Whoever keeps the gate lets through as much as the "
    "wheels below can use, and no more: what they cannot use yet waits above, where it does no harm. In a dry month "
    "the gate stands open and one wheel turns. In a wet one there are 12 wheels, each with a gate of its own, and the "
    "keeper walks from one to the next 3 times a day with a lantern, a pencil and a notebook of 96 pages."
)


def make(pages: Sequence[Path], target: Path) -> dict[str, int]:
    """Find the text of pages and store its crops.

    Args:
        pages: image files beside the sample; none takes rendered pages.
        target: file to write.

    Returns:
        Number of crops by page.
    """
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
    import cv2
    from direct_pipeline import CONFIDENCE, IOU, TEXT_CLASS, DirectPipeline
    from sluiceway_runtime import weights

    detector = weights.resolve("text-nano", kind="detection").path
    recogniser = weights.resolve("ppocrv6-tiny", kind="recognition").path
    pipeline = DirectPipeline(detector, recogniser, [], precision="f32")
    images = {name: cv2.imread(str(path)) for name, path in weights.pull_samples(SAMPLES).items()}
    images |= {path.name: cv2.imread(str(path)) for path in pages}
    if not pages:
        images |= {f"rendered, {size} px": _rendered_page(size) for size in RENDERED_PX}
    crops: list[Crop] = []
    found: dict[str, int] = {}
    for name, image in images.items():
        if image is None:
            raise SystemExit(f"{name} is no image that can be read")
        before = len(crops)
        for box, class_id, _ in pipeline.detect(image, CONFIDENCE, IOU):
            if class_id == TEXT_CLASS:
                x0, y0, x1, y1 = (round(value) for value in box)
                crops.append(_to_height(image[y0:y1, x0:x1]))
        found[name] = len(crops) - before
        if not found[name]:
            raise SystemExit(f"no text was found on {name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    widths = np.array([crop.shape[1] for crop in crops])
    np.savez_compressed(target, pixels=np.concatenate(crops, axis=1), widths=widths)
    return found


def load(path: Path) -> list[Crop]:
    """The crops of a file, uint8 [48, w_i, 3] BGR."""
    with np.load(path) as file:
        ends = np.cumsum(file["widths"])
        return [np.ascontiguousarray(crop) for crop in np.split(file["pixels"], ends[:-1], axis=1)]


def fitted(crops: Sequence[Crop], width: int) -> list[Crop]:
    """The same crops, all stretched to one width."""
    import cv2

    return [np.asarray(cv2.resize(crop, (width, HEIGHT)), dtype=np.uint8) for crop in crops]


def _to_height(region: Crop) -> Crop:
    import cv2

    width = max(8, min(1920, round(region.shape[1] * HEIGHT / region.shape[0])))
    return np.asarray(cv2.resize(region, (width, HEIGHT)), dtype=np.uint8)


def _rendered_page(size_px: int) -> Crop:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size_px)
    lines = textwrap.wrap(PROSE, 1100 * 2 // size_px)
    page = Image.new("RGB", (1240, 120 + round(size_px * 1.7) * len(lines)), "white")
    ink = ImageDraw.Draw(page)
    for line, text in enumerate(lines):
        ink.text((60, 60 + round(size_px * 1.7) * line), text, fill="black", font=font)
    return np.asarray(page)[:, :, ::-1].copy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, action="append", default=[])
    parser.add_argument("--to", type=Path, default=DEFAULT_FILE)
    arguments = parser.parse_args()
    found = make(arguments.page, arguments.to)
    widths = [crop.shape[1] for crop in load(arguments.to)]
    print(f"{sum(found.values())} crops of {found} in {arguments.to}, {np.mean(widths):.0f} pixels wide on average")
    return 0


if __name__ == "__main__":
    sys.exit(main())
