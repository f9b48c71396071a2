"""Pictures of results: boxes, and the text where it was read."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Literal

from PIL import Image, ImageDraw, ImageOps

from sluiceway.client.lettering import Lettering
from sluiceway.client.regions import Region
from sluiceway.client.results import Result

__all__ = ["draw"]

Layout = Literal["auto", "overlay", "side_by_side"]
Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Distinct on light and dark ground, and to colour-blind eyes (after Okabe and Ito).
_PALETTE: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
# Labels over this many regions would hide what they describe: then the text gets a panel of its own.
MAX_OVERLAY_REGIONS = 24
# Hiding a label is so much worse than hiding a piece of another region.
LABEL_WEIGHT = 4
# A small scan is enlarged to this longer side, so that what is written on it can be read.
MIN_LONG_SIDE_PX = 1400
# Confidence from which a keypoint is drawn: those that a model takes for hidden lie anywhere.
SEEN = 0.5


def draw(
    image: Image.Image | str | os.PathLike[str] | bytes,
    result: Result,
    *,
    layout: Layout = "auto",
    font: str | os.PathLike[str] | None = None,
    page: int = 0,
) -> Image.Image:
    """Draw the regions of a result over its image.

    Regions of one step have a colour for each class; where several steps found some, each step has one of its own.

    Args:
        image: the image that was processed: a picture, a file, or the bytes of one (`Result.image`).
        result: what came of it.
        layout: "overlay" writes each text above its box; "side_by_side" sets a page with the text beside the image;
            "auto" takes the overlay as long as it leaves the image readable.
        font: a TrueType file to prefer; whatever it cannot write is written in fonts of the system.
        page: which one the image shows; regions of others are left out.

    Returns:
        A new RGB picture; small images are enlarged by a whole factor. The argument is not changed.
    """
    picture = _open(image)
    factor = max(1, -(-MIN_LONG_SIDE_PX // max(picture.size)) if max(picture.size) < MIN_LONG_SIDE_PX else 1)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
    font_path = str(font) if font else None
    regions = [region for region in result.regions if region.page == page]
    beside = layout == "side_by_side" or (
        layout == "auto" and sum(bool(region.text) for region in regions) > MAX_OVERLAY_REGIONS
    )
    colours = _colours(regions)
    marked = _outlines(picture, regions, colours, factor, filled=True)
    if beside:
        return _side_by_side(marked, regions, colours, factor, font_path)
    return _labelled(marked, regions, colours, factor, font_path)


def _open(image: Image.Image | str | os.PathLike[str] | bytes) -> Image.Image:
    if isinstance(image, Image.Image):
        # Results are in the frame that a viewer shows, after EXIF orientation.
        return ImageOps.exif_transpose(image).convert("RGB")
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _colours(regions: Sequence[Region]) -> dict[int, Colour]:
    """Choose the colour of each region, by its id."""
    # In reading order: a step that works on regions of another comes behind it.
    steps = list(dict.fromkeys(region.step for region in regions))
    kinds = steps if len(steps) > 1 else sorted({region.class_name for region in regions})
    kind_of = {region.id: region.step if len(steps) > 1 else region.class_name for region in regions}
    return {key: _PALETTE[kinds.index(kind) % len(_PALETTE)] for key, kind in kind_of.items()}


def _scaled(region: Region, factor: int) -> list[tuple[float, float]]:
    return [(x * factor, y * factor) for x, y in region.outline]


def _scaled_box(region: Region, factor: int) -> Rectangle:
    x0, y0, x1, y1 = region.box
    return (x0 * factor, y0 * factor, x1 * factor, y1 * factor)


def _outlines(
    picture: Image.Image, regions: Sequence[Region], colours: dict[int, Colour], factor: int, *, filled: bool
) -> Image.Image:
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    width = max(2, round(max(picture.size) / 600))
    for region in regions:
        corners, colour = _scaled(region, factor), colours[region.id]
        if filled:
            pen.polygon(corners, fill=(*colour, 36))
        pen.line([*corners, corners[0]], fill=(*colour, 255), width=width, joint="curve")
        for x, y, sure in region.keypoints:
            if sure >= SEEN:
                at = (x * factor, y * factor)
                pen.ellipse([at[0] - width, at[1] - width, at[0] + width, at[1] + width], fill=(*colour, 255))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def _labelled(
    picture: Image.Image, regions: Sequence[Region], colours: dict[int, Colour], factor: int, font_path: str | None
) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    size = max(13, round(max(picture.size) / 85))
    lettering, pad = Lettering(size, font_path), max(2, size // 6)
    taken: list[Rectangle] = []
    boxes = [_scaled_box(region, factor) for region in regions]
    for region in regions:
        label = region.text or f"{region.class_name} {region.confidence:.2f}"
        width, height = lettering.length_px(label) + 2 * pad, lettering.height_px + pad
        place = _place(region, factor, (width, height), bounds=picture.size, taken=taken, regions=boxes)
        taken.append(place)
        pen.rounded_rectangle(place, radius=pad, fill=colours[region.id])
        lettering.write(pen, place[0] + pad, place[1] + pad / 2 + lettering.ascent_px, label, "white")
    return picture


def _place(
    region: Region,
    factor: int,
    size: tuple[float, float],
    *,
    bounds: tuple[int, int],
    taken: Sequence[Rectangle],
    regions: Sequence[Rectangle],
) -> Rectangle:
    """Choose where a label goes: close to its region, covering as little as possible of labels and of other regions."""
    width, height = size
    x0, y0, x1, y1 = _scaled_box(region, factor)
    starts = (
        (x0, y0 - height), (x0, y1), (x1 - width, y0 - height), (x1 - width, y1), (x1, y0), (x0 - width, y0),
        (x0, y0 - 2 * height), (x0, y1 + height),
    )  # fmt: skip
    places = [
        (x, y, x + width, y + height)
        for x, y in ((min(max(x, 0), bounds[0] - width), min(max(y, 0), bounds[1] - height)) for x, y in starts)
    ]

    def hidden(place: Rectangle) -> float:
        labels = sum(_common_px(place, other) for other in taken)
        return LABEL_WEIGHT * labels + sum(_common_px(place, other) for other in regions)

    return min(places, key=hidden)


def _common_px(a: Rectangle, b: Rectangle) -> float:
    """Area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _side_by_side(
    picture: Image.Image, regions: Sequence[Region], colours: dict[int, Colour], factor: int, font_path: str | None
) -> Image.Image:
    gap = max(4, picture.width // 200)
    page = Image.new("RGB", picture.size, "white")
    page = _outlines(page, regions, colours, factor, filled=False)
    pen = ImageDraw.Draw(page)
    for region in regions:
        if region.text:
            _write_in_box(pen, region, factor, font_path)
    whole = Image.new("RGB", (2 * picture.width + gap, picture.height), (120, 120, 120))
    whole.paste(picture, (0, 0))
    whole.paste(page, (picture.width + gap, 0))
    return whole


def _write_in_box(pen: ImageDraw.ImageDraw, region: Region, factor: int, font_path: str | None) -> None:
    assert region.text
    box = region.box
    width, height = box.width * factor, box.height * factor
    size = max(6, int(height * 0.8))
    length = Lettering(size, font_path).length_px(region.text)
    if length > width * 0.96:
        size = max(6, int(size * width * 0.96 / length))
    lettering = Lettering(size, font_path)
    left = (box.x0 + box.x1) / 2 * factor - lettering.length_px(region.text) / 2
    # Letters without descenders look centred when their own middle, a third of the size above the baseline, is.
    baseline = (box.y0 + box.y1) / 2 * factor + size * 0.36
    lettering.write(pen, left, baseline, region.text, "#141414")
