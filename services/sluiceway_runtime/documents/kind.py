"""Which files are documents."""

from __future__ import annotations

import struct

from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.images.signatures import LONGEST, format_of
from sluiceway_runtime.images.tiff import pages_of

__all__ = ["is_document", "is_pdf"]

_PDF = b"%PDF-"
# Readers look for the header in so many bytes: files that went through mail or a printer have something before it.
_PDF_WITHIN = 1024


def is_pdf(data: bytes | memoryview) -> bool:
    """Whether a file is a PDF. One that begins as an image is that image, whatever follows."""
    return format_of(bytes(data[:LONGEST])) is None and _PDF in bytes(data[:_PDF_WITHIN])


def is_document(data: bytes | memoryview) -> bool:
    """Whether a file is a PDF, or a TIFF with more than one page. Thumbnails and masks are no pages."""
    kind = format_of(bytes(data[:LONGEST]))
    if kind == "tiff":
        try:
            return len(pages_of(memoryview(data), 2)) > 1
        except (InvalidImage, struct.error):
            return False  # whoever decodes it says why
    return kind is None and _PDF in bytes(data[:_PDF_WITHIN])
