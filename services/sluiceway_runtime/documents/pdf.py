"""Pages of PDF files, rendered by PDFium. For workers: what reads files of strangers may crash, or never come back."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.text_lines import PageText, TextLine, joined
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage
from sluiceway_runtime.images.limits import ImageLimits

__all__ = ["PdfFile"]

_POINTS_PER_INCH = 72
# PDFium's own, by number: why a file cannot be opened.
_PASSWORD, _SECURITY = 4, 5
_WHITE = 0xFFFFFFFF
# Of the text of a page.
_MOST_PIECES = 20_000
_RENDERED, _TO_BE_CONTINUED = 2, 1


# PDFium is for one thread at a time, and workers of GPUs decode in several.
_lock = threading.Lock()


class PdfFile:
    """A file, open within `with`. One is open at a time in a process: others wait.

    Args:
        data: the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data  # PDFium reads from it at any time
        self._lib = _library()
        self._document: Any = None
        self.page_count = 0

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            InvalidImage: damaged, encrypted, without pages, or PDFium is not installed.
        """
        _lock.acquire()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        self._document = self._lib.FPDF_LoadMemDocument64(self._data, len(self._data), None)
        if not self._document:
            if self._lib.FPDF_GetLastError() in (_PASSWORD, _SECURITY):
                raise InvalidImage("the PDF is encrypted: it opens with a password alone")
            raise InvalidImage("the PDF file is damaged")
        self.page_count = self._lib.FPDF_GetPageCount(self._document)
        if self.page_count < 1:
            raise InvalidImage("the PDF has no pages")

    def _close(self) -> None:
        if self._document:
            self._lib.FPDF_CloseDocument(self._document)
            self._document = None
        _lock.release()

    def render(self, number: int, images: ImageLimits, documents: DocumentLimits) -> NDArray[np.uint8]:
        """Render a page as people see it, with its notes and filled forms.

        Args:
            number: of the page, from 0, below `page_count`.
            images: no more pixels than these allow.
            documents: resolution and time.

        Returns:
            uint8 [H, W, 3] BGR, contiguous.

        Raises:
            InvalidImage: the page is damaged.
            ImageTooLarge: rendering it takes more than `page_timeout_s`.
        """
        lib = self._lib
        page = lib.FPDF_LoadPage(self._document, number)
        if not page:
            raise InvalidImage("the page is damaged")
        try:
            width, height = _size_px(
                lib.FPDF_GetPageWidthF(page), lib.FPDF_GetPageHeightF(page), documents.dpi, images.max_pixels
            )
            pixels = np.empty((height, width, 3), np.uint8)
            bitmap = lib.FPDFBitmap_CreateEx(
                width, height, lib.FPDFBitmap_BGR, pixels.ctypes.data_as(ctypes.c_void_p), pixels.strides[0]
            )
            if not bitmap:
                raise InvalidImage("the page cannot be rendered")
            try:
                lib.FPDFBitmap_FillRect(bitmap, 0, 0, width, height, _WHITE)
                self._draw(bitmap, page, width, height, documents.page_timeout_s)
            finally:
                lib.FPDFBitmap_Destroy(bitmap)
        finally:
            lib.FPDF_ClosePage(page)
        return pixels

    def lines(self, number: int, images: ImageLimits, documents: DocumentLimits) -> PageText | None:
        """The text that a page holds, in pixels of the page as `render` would make it; None if it holds none.

        Raises:
            InvalidImage: the page is damaged.
        """
        lib = self._lib
        page = lib.FPDF_LoadPage(self._document, number)
        if not page:
            raise InvalidImage("the page is damaged")
        try:
            width, height = _size_px(
                lib.FPDF_GetPageWidthF(page), lib.FPDF_GetPageHeightF(page), documents.dpi, images.max_pixels
            )
            text = lib.FPDFText_LoadPage(page)
            if not text:
                return None
            try:
                lines = joined(self._pieces(page, text, width, height))
            finally:
                lib.FPDFText_ClosePage(text)
        finally:
            lib.FPDF_ClosePage(page)
        return PageText((height, width), tuple(lines)) if lines else None

    def _pieces(self, page: Any, text: Any, width: int, height: int) -> Iterator[TextLine]:
        lib = self._lib
        for index in range(min(lib.FPDFText_CountRects(text, 0, -1), _MOST_PIECES)):
            left, top, right, bottom = (ctypes.c_double() for _ in range(4))
            if not lib.FPDFText_GetRect(text, index, *map(ctypes.byref, (left, top, right, bottom))):
                continue
            edges = (left.value, top.value, right.value, bottom.value)
            size = lib.FPDFText_GetBoundedText(text, *edges, None, 0)
            buffer = (ctypes.c_ushort * max(size, 1))()
            lib.FPDFText_GetBoundedText(text, *edges, buffer, size)
            words = bytes(buffer)[: 2 * size].decode("utf-16-le", "replace").rstrip("\0")
            x, y = ctypes.c_int(), ctypes.c_int()
            corners = []
            for across, up in ((left.value, top.value), (right.value, bottom.value)):
                lib.FPDF_PageToDevice(page, 0, 0, width, height, 0, across, up, ctypes.byref(x), ctypes.byref(y))
                corners.append((min(max(x.value, 0), width), min(max(y.value, 0), height)))
            (x0, y0), (x1, y1) = corners
            box = (float(min(x0, x1)), float(min(y0, y1)), float(max(x0, x1)), float(max(y0, y1)))
            if box[0] < box[2] and box[1] < box[3]:
                yield TextLine(box, words)

    def _draw(self, bitmap: Any, page: Any, width: int, height: int, timeout_s: float) -> None:
        lib = self._lib
        deadline_s = time.monotonic() + timeout_s
        pause = lib.IFSDK_PAUSE(version=1)
        # Kept in a name for as long as PDFium may call it.
        late = type(pause.NeedToPauseNow)(lambda _pause: time.monotonic() > deadline_s)
        pause.NeedToPauseNow = late
        status = lib.FPDF_RenderPageBitmap_Start(
            bitmap, page, 0, 0, width, height, 0, lib.FPDF_ANNOT, ctypes.pointer(pause)
        )
        lib.FPDF_RenderPage_Close(page)
        if status == _TO_BE_CONTINUED:
            raise ImageTooLarge(
                f"the page takes more than {timeout_s:g} s to render",
                metadata={"limit": "page_timeout_s", "max": f"{timeout_s:g}"},
            )
        if status != _RENDERED:
            raise InvalidImage("the page cannot be rendered")


def _size_px(width_pt: float, height_pt: float, dpi: int, most_px: int) -> tuple[int, int]:
    """Width and height to render a page in."""
    if not (0 < width_pt < math.inf and 0 < height_pt < math.inf):
        raise InvalidImage("the page has no size")
    scale = min(dpi / _POINTS_PER_INCH, math.sqrt(most_px / (width_pt * height_pt)))
    width, height = max(1, math.floor(width_pt * scale)), max(1, math.floor(height_pt * scale))
    if width * height > most_px:
        raise InvalidImage("the page is a line without width")
    return width, height


def _library() -> Any:
    try:
        import pypdfium2  # noqa: PLC0415 - an extra; importing it starts PDFium
    except ModuleNotFoundError:
        raise InvalidImage("this is a PDF document; servers read those where pypdfium2 is installed") from None
    return pypdfium2.raw
