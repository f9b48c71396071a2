"""`--format`: results as text, tables and documents, on standard output or as a file for each source."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from sluiceway.cli.inputs import Input
from sluiceway.cli.streams import flush_bytes
from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.client import Result
from sluiceway.formats import to_alto, to_csv, to_hocr, to_markdown, to_searchable_pdf, to_text
from sluiceway.installation import install_command

__all__ = ["Documents", "FormatName", "image_of"]


class FormatName(StrEnum):
    """Spelling on the command line."""

    JSON = "json"
    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    HOCR = "hocr"
    ALTO = "alto"
    SEARCHABLE_PDF = "searchable-pdf"


SUFFIXES = {
    FormatName.TEXT: ".txt",
    FormatName.MARKDOWN: ".md",
    FormatName.CSV: ".csv",
    FormatName.HOCR: ".hocr",
    FormatName.ALTO: ".xml",
    FormatName.SEARCHABLE_PDF: ".pdf",
}
# Of these several can stand one after the other in a stream.
STREAMED = (FormatName.TEXT, FormatName.MARKDOWN, FormatName.CSV)
_WRITERS: dict[FormatName, Callable[[Result], str]] = {
    FormatName.MARKDOWN: to_markdown,
    FormatName.HOCR: to_hocr,
    FormatName.ALTO: to_alto,
}


class Documents:
    """Where documents go.

    Args:
        form: any but JSON.
        place: gives the file for a source and a suffix; None writes to standard output.
        sources: how many there are.
    """

    def __init__(self, form: FormatName, place: Callable[[str, str], Path] | None, sources: int) -> None:
        self._form = form
        self._place = place
        self._begun = False
        if form is FormatName.SEARCHABLE_PDF and not all(map(importlib.util.find_spec, ("pikepdf", "fontTools"))):
            fail(f"--format searchable-pdf needs what `{install_command('pdf')}` brings", EXIT_USAGE)
        if place is None and sources > 1 and form not in STREAMED:
            fail(f"--format {form} makes a file for each source: name a folder with --out", EXIT_USAGE)
        if place is None and form is FormatName.SEARCHABLE_PDF and sys.stdout.isatty():
            fail("a PDF is nothing for a terminal: name a folder with --out, or redirect standard output", EXIT_USAGE)

    def add(self, result: Result, item: Input) -> None:
        """Write one result.

        Raises:
            OSError, SluicewayError: it cannot be written.
        """
        data = self._rendered(result, item)
        if self._place is not None:
            self._place(item.name, SUFFIXES[self._form]).write_bytes(data)
        else:
            flush_bytes(data)
        self._begun = True

    def _rendered(self, result: Result, item: Input) -> bytes:
        first = self._place is not None or not self._begun
        if self._form is FormatName.SEARCHABLE_PDF:
            return to_searchable_pdf(result, image_of(result, item))
        if self._form is FormatName.CSV:
            text = to_csv(result, header=first)
        elif self._form is FormatName.TEXT:
            text = ("" if first else "\f") + to_text(result)
        else:
            text = _WRITERS[self._form](result)
        return text.encode("utf-8", "replace")


def image_of(result: Result, item: Input) -> bytes | Path:
    """The image of a result: what was fetched, what came by standard input, or a file."""
    return result.image or (item.source if isinstance(item.source, bytes) else Path(item.name))
