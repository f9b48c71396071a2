"""PDF files as tests need them: some lines of text a page, or a picture; damaged and encrypted ones."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

import pikepdf
from pikepdf import Dictionary, Name

__all__ = ["A4_PT", "pdf_of", "pdf_of_pictures"]

A4_PT = (595.0, 842.0)


def pdf_of(
    texts: Sequence[str],
    *,
    size_pt: tuple[float, float] = A4_PT,
    damaged: Collection[int] = (),
    password: str = "",
    slow: Collection[int] = (),
) -> bytes:
    """A page for each text, its lines set in Helvetica from the top.

    Args:
        texts: of the pages.
        size_pt: width and height in points.
        damaged: pages that are listed and are none.
        password: without which it does not open.
        slow: pages on which millions of lines are drawn.
    """
    pdf = pikepdf.new()
    font = pdf.make_indirect(Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica))
    for number, text in enumerate(texts):
        pdf.add_blank_page(page_size=size_pt)
        page = pdf.pages[-1]
        lines = text.splitlines()
        words = b"".join(b"(%s) Tj 0 -30 Td " % line.encode("latin-1") for line in lines)
        content = b"BT /F1 20 Tf 40 %d Td %sET" % (size_pt[1] - 60, words)
        if number in slow:
            content += b" 0.1 w" + b" 10 10 m 500 800 l 20 400 l 580 20 l S" * 500_000
        page.Contents = pdf.make_stream(content)
        page.Resources = Dictionary(Font=Dictionary(F1=font))
        if number in damaged:
            page.obj.Type = Name.Nothing
            for key in ("/MediaBox", "/Contents", "/Resources"):
                del page.obj[key]
            page.obj.MediaBox = pikepdf.Array([0, 0, 0, 0])
    out = io.BytesIO()
    # So that it is the page that is damaged, and not the file.
    options = {"encryption": pikepdf.Encryption(owner=password, user=password)} if password else {}
    pdf.save(out, compress_streams=True, **options)
    return out.getvalue()


def pdf_of_pictures(jpegs: Sequence[bytes], sizes_px: Sequence[tuple[int, int]], *, dpi: int = 200) -> bytes:
    """A scan: each page is one JPEG."""
    pdf = pikepdf.new()
    for jpeg, (width, height) in zip(jpegs, sizes_px, strict=True):
        size = (width * 72 / dpi, height * 72 / dpi)
        pdf.add_blank_page(page_size=size)
        page = pdf.pages[-1]
        image = pikepdf.Stream(
            pdf,
            jpeg,
            Type=Name.XObject,
            Subtype=Name.Image,
            Width=width,
            Height=height,
            ColorSpace=Name.DeviceRGB,
            BitsPerComponent=8,
            Filter=Name.DCTDecode,
        )
        page.Resources = Dictionary(XObject=Dictionary(Im=image))
        page.Contents = pdf.make_stream(b"%f 0 0 %f 0 0 cm /Im Do" % size)
    out = io.BytesIO()
    pdf.save(out)
    return out.getvalue()
