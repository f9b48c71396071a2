"""Searchable PDF: the images as they are, with their text invisible above them. Needs the extra `pdf`."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from sluiceway.client.regions import Region
from sluiceway.client.results import Result
from sluiceway.errors import InvalidInput
from sluiceway.formats.layout import PageLayout, layout_of

if TYPE_CHECKING:
    import pikepdf

__all__ = ["to_searchable_pdf"]

# Where an image does not say how many dots it has for an inch.
DEFAULT_DPI = 96.0
POINTS_PER_INCH = 72.0
# Of a glyph, in thousandths of the size of the font.
GLYPH_WIDTH = 500
JPEG_QUALITY = 90
# A character is a code unit of UTF-16, in the font and in Unicode alike.
_TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""


def to_searchable_pdf(result: Result, image: bytes | str | os.PathLike[str]) -> bytes:
    """Make a PDF of an image, or of the pages of one, in which what was read can be searched, marked and copied.

    Args:
        result: what was read.
        image: the file that was processed, or its bytes (`Result.image` of what was fetched). JPEG goes in as it is,
            unless it is turned by EXIF; other images go in without loss.

    Raises:
        InvalidInput: the image cannot be opened here, or is a PDF itself.
        ModuleNotFoundError: the extra is not installed.
    """
    import pikepdf  # noqa: PLC0415 - optional

    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    if data.startswith(b"%PDF"):
        raise InvalidInput(f"{result.source} is a PDF itself; a searchable one is made of images")
    document = pikepdf.new()
    font = _font(document)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            for layout in layout_of(result):
                if layout.page.index:
                    picture.seek(layout.page.index)
                _add_page(document, font, picture, layout, data)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidInput(f"{result.source} cannot be opened for a PDF: {error}") from error
    with document.open_metadata() as metadata:
        metadata["dc:title"] = result.source.encode("utf-8", "replace").decode()
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _add_page(
    document: pikepdf.Pdf, font: pikepdf.Object, picture: Image.Image, layout: PageLayout, data: bytes
) -> None:
    import pikepdf  # noqa: PLC0415

    upright = ImageOps.exif_transpose(picture)
    scale_x, scale_y = _points_per_pixel(picture)
    width, height = upright.width * scale_x, upright.height * scale_y
    # Regions are in the pixels that the server saw, which are those of the image.
    page = layout.page
    place = (width / (page.width or upright.width), height / (page.height or upright.height))
    # A frame that is turned is another image than the one in the file.
    turned = upright.size != picture.size or picture.getexif().get(0x0112, 1) != 1
    drawn = _image(document, upright, data if picture.format == "JPEG" and not turned else None)
    content = [f"q {width:.4f} 0 0 {height:.4f} 0 0 cm /Im0 Do Q", *_text(layout, place, height)]
    document.add_blank_page(page_size=(width, height))
    target = document.pages[-1]
    target.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=drawn), Font=pikepdf.Dictionary(F0=font))
    target.Contents = document.make_stream("\n".join(content).encode("ascii"))


def _points_per_pixel(picture: Image.Image) -> tuple[float, float]:
    dpi = picture.info.get("dpi") or (DEFAULT_DPI, DEFAULT_DPI)
    # Some files say 0 or 1, which no scanner has.
    x, y = (float(value) if float(value) >= 10 else DEFAULT_DPI for value in dpi)
    if picture.getexif().get(0x0112, 1) >= 5:
        x, y = y, x
    return POINTS_PER_INCH / x, POINTS_PER_INCH / y


def _image(document: pikepdf.Pdf, picture: Image.Image, jpeg: bytes | None) -> pikepdf.Object:
    """An image of the document; a JPEG file goes in as it is."""
    import pikepdf  # noqa: PLC0415

    names: dict[str, Any] = {
        "Type": pikepdf.Name.XObject,
        "Subtype": pikepdf.Name.Image,
        "Width": picture.width,
        "Height": picture.height,
        "BitsPerComponent": 8,
    }
    if jpeg is not None and picture.mode in ("L", "RGB"):
        names["Filter"] = pikepdf.Name.DCTDecode
        raw = jpeg
    else:
        if picture.mode != "L":
            picture = picture.convert("RGB")
        raw = picture.tobytes()
    names["ColorSpace"] = pikepdf.Name.DeviceGray if picture.mode == "L" else pikepdf.Name.DeviceRGB
    stream = pikepdf.Stream(document, raw)
    for name, value in names.items():
        stream[f"/{name}"] = value
    return document.make_indirect(stream)


def _text(layout: PageLayout, place: tuple[float, float], height: float) -> Iterable[str]:
    """Operators that write every word over itself, without painting it."""
    yield "BT 3 Tr"
    for block in layout.blocks:
        for line in block.lines:
            for word in line.words:
                yield from _word(word, place, height)
    yield "ET"


def _word(word: Region, place: tuple[float, float], height: float) -> Iterable[str]:
    corners = word.outline if len(word.outline) == 4 else word.box.corners
    points = [(x * place[0], height - y * place[1]) for x, y in corners]
    top, right, left = points[0], points[2], points[3]
    length, size = math.dist(left, right), math.dist(left, top)
    units = (word.text or "").encode("utf-16-be", "replace")
    if not units or length <= 0 or size <= 0:
        return
    natural = len(units) / 2 * size * GLYPH_WIDTH / 1000
    cos, sin = (right[0] - left[0]) / length, (right[1] - left[1]) / length
    yield f"/F0 {size:.3f} Tf {100 * length / natural:.3f} Tz"
    yield f"{cos:.5f} {sin:.5f} {-sin:.5f} {cos:.5f} {left[0]:.3f} {left[1]:.3f} Tm"
    # The space keeps it apart from the next word for whoever copies.
    yield f"<{units.hex()}0020> Tj"


def _font(document: pikepdf.Pdf) -> pikepdf.Object:
    """A font for every character of Unicode that shows none of them."""
    import pikepdf  # noqa: PLC0415

    name = pikepdf.Name("/GlyphLessFont")
    flags, size = 5, 1000
    descriptor = pikepdf.Dictionary(
        Type=pikepdf.Name.FontDescriptor,
        FontName=name,
        Flags=flags,
        FontBBox=[0, 0, GLYPH_WIDTH, size],
        ItalicAngle=0,
        Ascent=size,
        Descent=0,
        CapHeight=size,
        StemV=80,
        FontFile2=document.make_indirect(pikepdf.Stream(document, _font_file())),
    )
    # All codes have the one glyph.
    glyphs = document.make_indirect(pikepdf.Stream(document, bytes(2 * 0x10000)))
    system = pikepdf.Dictionary(Registry=b"Adobe", Ordering=b"Identity", Supplement=0)
    descendant = pikepdf.Dictionary(
        Type=pikepdf.Name.Font,
        Subtype=pikepdf.Name.CIDFontType2,
        BaseFont=name,
        CIDSystemInfo=system,
        FontDescriptor=document.make_indirect(descriptor),
        DW=GLYPH_WIDTH,
        CIDToGIDMap=glyphs,
    )
    return document.make_indirect(
        pikepdf.Dictionary(
            Type=pikepdf.Name.Font,
            Subtype=pikepdf.Name.Type0,
            BaseFont=name,
            Encoding=pikepdf.Name("/Identity-H"),
            DescendantFonts=[document.make_indirect(descendant)],
            ToUnicode=document.make_indirect(pikepdf.Stream(document, _TO_UNICODE)),
        )
    )


def _font_file() -> bytes:
    """A TrueType font of one glyph: a speck in each of two corners of its box.

    Without any extent, text that is turned would have no width for PDFium, which then does not find it.
    """
    from fontTools.fontBuilder import FontBuilder  # noqa: PLC0415 - optional
    from fontTools.pens.ttGlyphPen import TTGlyphPen  # noqa: PLC0415

    pen = TTGlyphPen(None)
    for x, y in ((0, 0), (GLYPH_WIDTH - 1, 999)):
        pen.moveTo((x, y))
        pen.lineTo((x, y + 1))
        pen.lineTo((x + 1, y))
        pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef"])
    builder.setupCharacterMap({})
    builder.setupGlyf({".notdef": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (GLYPH_WIDTH, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "GlyphLessFont", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    file = io.BytesIO()
    builder.save(file)
    return file.getvalue()
