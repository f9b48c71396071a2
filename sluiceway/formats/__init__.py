"""Results as text, tables and documents that other programs read."""

from sluiceway.formats.layout import Block, Line, PageLayout, layout_of
from sluiceway.formats.markup import to_alto, to_hocr
from sluiceway.formats.pdf import to_searchable_pdf
from sluiceway.formats.plain import CSV_COLUMNS, to_csv, to_markdown, to_text
from sluiceway.formats.speedscope import to_speedscope
from sluiceway.formats.trace_events import to_trace_events

__all__ = [
    "to_text",
    "to_markdown",
    "to_csv",
    "to_hocr",
    "to_alto",
    "to_searchable_pdf",
    "to_speedscope",
    "to_trace_events",
    "CSV_COLUMNS",
    "layout_of",
    "PageLayout",
    "Block",
    "Line",
]
