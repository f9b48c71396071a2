"""Results as text, tables and documents that other programs read."""

from sluiceway.formats.layout import Block, Line, PageLayout, layout_of
from sluiceway.formats.markup import to_alto, to_hocr
from sluiceway.formats.pdf import to_searchable_pdf
from sluiceway.formats.plain import CSV_COLUMNS, to_csv, to_markdown, to_text

__all__ = [
    "to_text",
    "to_markdown",
    "to_csv",
    "to_hocr",
    "to_alto",
    "to_searchable_pdf",
    "CSV_COLUMNS",
    "layout_of",
    "PageLayout",
    "Block",
    "Line",
]
