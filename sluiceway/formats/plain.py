"""Text as it is, Markdown, and tables."""

from __future__ import annotations

import csv
import io
import re

from sluiceway.client.regions import Box
from sluiceway.client.results import Result
from sluiceway.formats.layout import layout_of

__all__ = ["CSV_COLUMNS", "to_csv", "to_markdown", "to_text"]

CSV_COLUMNS = (
    *("source", "page", "region", "parent", "step"),
    *Box._fields,
    *("class", "confidence", "text", "text_confidence"),
)
# What Markdown (CommonMark) reads as more than itself, anywhere and at the beginning of a line.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~])")
_LIST = re.compile(r"^(\s*)([-+]|\d{1,9}(?=[.)]))")


def to_text(result: Result) -> str:
    """Write the text: a line for each, an empty line between blocks, and a form feed between pages."""
    pages = (
        "\n\n".join("\n".join(line.text for line in block.lines) for block in page.blocks) for page in layout_of(result)
    )
    return "\n\f".join(pages) + "\n"


def to_markdown(result: Result) -> str:
    """Write the text as Markdown: the name of the source as a heading, a paragraph a block, rules between pages."""
    pages = []
    for page in layout_of(result):
        blocks = ("\n".join(_escaped(line.text) for line in block.lines) for block in page.blocks)
        pages.append("\n\n".join(blocks))
    return f"## {_escaped(result.source)}\n\n" + "\n\n---\n\n".join(pages) + "\n\n"


def to_csv(result: Result, *, header: bool = True) -> str:
    """Write a row for each region, as RFC 4180 has it; boxes in pixels of the page."""
    file = io.StringIO()
    writer = csv.writer(file)
    if header:
        writer.writerow(CSV_COLUMNS)
    for region in result.regions:
        writer.writerow(
            (
                *(result.source, region.page, region.id, region.parent_id, region.step),
                *(round(value, 2) for value in region.box),
                *(region.class_name, round(region.confidence, 4), region.text),
                None if region.text_confidence is None else round(region.text_confidence, 4),
            )
        )
    return file.getvalue()


def _escaped(text: str) -> str:
    plain = _MARKUP.sub(r"\\\1", text)
    return _LIST.sub(
        lambda found: f"{found[1]}{found[2]}\\" if found[2].isdigit() else f"{found[1]}\\{found[2]}", plain
    )
