"""One page of a document, as pixels."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from sluiceway_runtime.documents.kind import is_pdf
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pdf import PdfFile
from sluiceway_runtime.documents.text_lines import TextLine
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption, SluicewayError
from sluiceway_runtime.images.decode import DecodedImage, decode_checked
from sluiceway_runtime.images.facts import ImageHeader
from sluiceway_runtime.images.header import read_header
from sluiceway_runtime.images.limits import ImageLimits, check_header, check_size
from sluiceway_runtime.images.signatures import LONGEST, format_of
from sluiceway_runtime.images.tiff import pages_of

__all__ = ["PAGE_COUNT", "DocumentPage", "read_page"]

# In the metadata of an error that concerns one page alone: how many pages there are.
PAGE_COUNT = "page_count"


class DocumentPage(NamedTuple):
    """A page.

    Attributes:
        image: its pixels; of a page whose text was taken instead, none of them, but its size: uint8 [H, W, 0].
        page_count: of the document.
        lines: of the text that it holds, if that was asked for.
    """

    image: DecodedImage
    page_count: int
    lines: tuple[TextLine, ...] = ()


def read_page(
    data: bytes | memoryview,
    number: int,
    images: ImageLimits,
    documents: DocumentLimits,
    *,
    prefers_text: bool = False,
) -> DocumentPage:
    """Decode or render one page.

    Args:
        data: a PDF or TIFF; any other image is a document of one page.
        number: of the page, from 0.
        images: limits of the file, and of the pixels of a page.
        documents: further limits.
        prefers_text: of a page that holds text, take that in place of pixels.

    Raises:
        InvalidImage, ImageTooLarge: the document cannot be read, or with `PAGE_COUNT` in the metadata: this page.
        InvalidOption: there is no such page; with `PAGE_COUNT`.
    """
    check_size(data, images)
    if is_pdf(data):
        with PdfFile(bytes(data)) as pdf:
            count = _counted(pdf.page_count, number, documents)
            try:
                lines = pdf.lines(number, images, documents) if prefers_text else None
                if lines is not None:
                    return DocumentPage(DecodedImage(np.empty((*lines.size_px, 0), np.uint8)), count, lines.lines)
                return DocumentPage(DecodedImage(pdf.render(number, images, documents)), count)
            except SluicewayError as error:
                raise _of_page(error, count) from None
    pages = _pictures(memoryview(data), documents.max_pages + 1)
    count = _counted(len(pages), number, documents)
    try:
        page = pages[number]
        if isinstance(page, InvalidImage):
            raise page
        check_header(page, images)
        return DocumentPage(decode_checked(data, page), count)
    except SluicewayError as error:
        # Of a document of one page, the page is the document.
        raise (_of_page(error, count) if count > 1 else error) from None


def _pictures(view: memoryview, most: int) -> list[ImageHeader | InvalidImage]:
    if format_of(bytes(view[:LONGEST])) != "tiff":
        return [read_header(view)]
    try:
        return pages_of(view, most)
    except struct.error:
        raise InvalidImage("the image header is cut off") from None


def _counted(count: int, number: int, limits: DocumentLimits) -> int:
    if count > limits.max_pages:
        raise ImageTooLarge(
            f"the document has more than {limits.max_pages} pages",
            metadata={"limit": "max_document_pages", "max": str(limits.max_pages)},
        )
    if number >= count:
        raise _of_page(InvalidOption(f"there is no page {number}: the document has {count}"), count)
    return count


def _of_page(error: SluicewayError, count: int) -> SluicewayError:
    error.metadata[PAGE_COUNT] = str(count)
    return error
