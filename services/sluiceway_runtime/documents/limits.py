"""What of a document is read, and how."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DEFAULT_DPI", "DEFAULT_MAX_PAGES", "DEFAULT_PAGE_TIMEOUT_S", "DocumentLimits"]

# A line of 10 pt is 28 pixels high then, and a page of A4 has 3.9 megapixels.
DEFAULT_DPI = 200
DEFAULT_MAX_PAGES = 1000
DEFAULT_PAGE_TIMEOUT_S = 10.0


class DocumentLimits(NamedTuple):
    """Limits of documents; those of images hold for each page as well.

    Attributes:
        max_pages: of a document.
        dpi: pixels an inch of a rendered page; less where that would be more pixels than an image may have.
        page_timeout_s: for rendering one page.
    """

    max_pages: int = DEFAULT_MAX_PAGES
    dpi: int = DEFAULT_DPI
    page_timeout_s: float = DEFAULT_PAGE_TIMEOUT_S
