"""Results as `run` gives them: NDJSON for programs, tables for people, annotated pictures for both."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sluiceway.cli.documents import Documents, FormatName, image_of
from sluiceway.cli.inputs import Input
from sluiceway.cli.resume import begin_line
from sluiceway.cli.terminal import errors, output, shown
from sluiceway.client import Region, Result, draw
from sluiceway.errors import SluicewayError

__all__ = ["Report"]

# JPEG keeps photographs small; the lines and letters of PNG sources stay sharp as PNG.
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
JPEG_QUALITY = 90
# Below this a reading is shown in yellow: worth a second look.
DOUBTFUL = 0.8
# Before a region that was found in another one, once for each above it.
INDENT = "  "
_PDF = b"%PDF-"


class Report:
    """Where results go.

    Args:
        as_json: NDJSON on stdout instead of tables.
        out: folder for annotated pictures; exists. It may hold inputs, and no picture replaces one of them.
        inputs: all images of the run, those that an earlier one has done as well.
        resume: results of that one; the output may go on in the same file.
        form: another format than JSON; then `out` is for documents, and not for pictures.

    Attributes:
        console: where tables go; None for NDJSON.
        unwritten: annotated pictures that could not be written.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        out: Path | None,
        inputs: Sequence[Input],
        resume: Path | None = None,
        form: FormatName | None = None,
    ) -> None:
        self._out = out
        self._originals = {_identity(item.name) for item in inputs} - {None} if out else set()
        self.console = None if as_json or form else output()
        self._documents = Documents(form, self._free_name if out else None, len(inputs)) if form else None
        self._taken: set[Path] = set()
        self._written = 0
        self.succeeded = 0
        self.failed = 0
        self.unwritten = 0
        self._regions = 0
        self._cut = as_json and resume is not None and begin_line(resume, sys.stdout.fileno())
        self._of = len(inputs)
        self._resumed = resume is not None

    def add(self, result: Result, item: Input) -> None:
        """Give out one result."""
        if result.ok:
            self.succeeded += 1
            self._regions += len(result.regions)
        else:
            self.failed += 1
        if self._documents is not None:
            self._document(self._documents, result, item)
            return
        if self.console is None:
            sys.stdout.write(("\n" if self._cut else "") + result.to_json() + "\n")
            self._cut = False
            sys.stdout.flush()
        else:
            self._print(self.console, result)
        if self._out and result.ok:
            self._draw(result, item)

    def close(self) -> None:
        """Say how it went."""
        total = self.succeeded + self.failed
        summary = f"{self.succeeded} of {total} images, {self._regions} regions"
        if self._resumed:
            summary += f", {self._of - total} done before"
        errors.print(f"{summary}, {self.failed} failed" if self.failed else summary, style="bold")
        if self._written and self._out:
            what = "documents" if self._documents else "annotated pictures"
            errors.print(f"{what} are in {escape(str(self._out))}", soft_wrap=True)
        if self.unwritten:
            what = "documents" if self._documents else "annotated pictures"
            errors.print(f"{self.unwritten} {what} could not be written", style="bold")

    def _document(self, documents: Documents, result: Result, item: Input) -> None:
        if result.error is not None:
            said = f"{shown(result.source)}: {shown(result.error.message)} ({result.error.reason})"
            errors.print(said, style="red", markup=False, soft_wrap=True)
            return
        try:
            documents.add(result, item)
        except (OSError, SluicewayError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            errors.print(f"cannot write {item.name}: {reason}", style="yellow", markup=False, soft_wrap=True)
            self.unwritten += 1
            return
        self._written += 1

    def _print(self, console: Console, result: Result) -> None:
        name = escape(shown(result.source))
        if result.error is not None:
            message = escape(shown(result.error.message))
            console.print(f"[bold]{name}[/]  [red]failed: {message}[/] ({result.error.reason})")
            return
        pages = f"{len(result.pages)} pages, " if len(result.pages) > 1 else ""
        size = f"{result.width} x {result.height}"
        facts = f"{pages}{size}, {len(result.regions)} regions, {result.timings.total_ms:.0f} ms"
        console.print(f"[bold]{name}[/]  [dim]{facts}[/]")
        _print_source(console, result)
        if not result.regions:
            return
        table = Table(
            "text", "confidence", "class", "box", box=None, pad_edge=False, padding=(0, 2), header_style="dim"
        )
        table.columns[1].justify = "right"
        depths = result.depths
        for region in result.regions:
            text = Text(INDENT * depths[region.id]) + _text(region)
            table.add_row(text, _confidence(region), region.class_name, _box(region))
        console.print(table)
        console.print()

    def _draw(self, result: Result, item: Input) -> None:
        assert self._out is not None
        image = image_of(result, item)
        if len(result.pages) > 1 or _is_pdf(image):
            said = f"no annotated pictures of documents: {item.name} has its text here; --format makes files of it"
            errors.print(said, style="yellow", markup=False, soft_wrap=True)
            return
        path = self._free_name(item.name)
        try:
            drawn = draw(image, result)
            if path.suffix in JPEG_SUFFIXES:
                drawn.save(path, quality=JPEG_QUALITY)
            else:
                drawn.save(path)
        except Exception as error:  # Pillow's decoders raise what they like for files that a server reads
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            errors.print(f"cannot write {path}: {reason}", style="yellow", markup=False, soft_wrap=True)
            self.unwritten += 1
            return
        self._written += 1

    def _free_name(self, source: str, suffix: str = "") -> Path:
        """Name a file after its source; a second one of the same name gets a number."""
        assert self._out is not None
        stem, own = _name_of(source)
        suffix = suffix or own
        path, number = self._out / f"{stem}{suffix}", 1
        if _identity(path) in self._originals:
            stem = f"{stem}-annotated"
            path = self._out / f"{stem}{suffix}"
        while path in self._taken or _identity(path) in self._originals:
            number += 1
            path = self._out / f"{stem}-{number}{suffix}"
        self._taken.add(path)
        return path


def _print_source(console: Console, result: Result) -> None:
    """What was said of the source as a whole, and what a person should know of it."""
    for name, value in result.values.items():
        data = json.dumps(value, ensure_ascii=False, default=str)
        console.print(f"{name}: {shown(data)}", markup=False, soft_wrap=True)
    for name, error in result.value_errors.items():
        console.print(f"{name}: {shown(error.message)}", style="red", markup=False, soft_wrap=True)
    for page, said in result.page_values.items():
        for reading in said.values():
            if reading.error is not None:
                text = f"page {page + 1}: {shown(reading.error.message)}"
                console.print(text, style="red", markup=False, soft_wrap=True)
    for notice in result.notices:
        console.print(shown(notice.message), style="yellow", markup=False, soft_wrap=True)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_PDF))


def _is_pdf(image: bytes | Path) -> bool:
    try:
        start = image if isinstance(image, bytes) else _start_of(image)
    except OSError:
        return False  # whoever draws says so
    return start.startswith(_PDF)


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Which file it is, by whatever name; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a name as it was typed, which may be no path
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _name_of(source: str) -> tuple[str, str]:
    if source == "-":
        return "stdin", ".png"
    parts = urlsplit(source)
    if parts.scheme in ("http", "https"):
        path = Path(parts.path)
        stem = path.stem or parts.hostname or "image"
    elif parts.scheme == "api":
        path = Path(source.replace(":", "-", 1))
        stem = path.name
    else:
        path = Path(source)
        stem = path.stem
    suffix = ".jpg" if path.suffix.lower() in JPEG_SUFFIXES else ".png"
    return re.sub(r"[^\w.-]+", "-", stem) or "image", suffix


def _text(region: Region) -> Text:
    if region.text:
        doubtful = (region.text_confidence or 0) < DOUBTFUL
        return Text(region.text, style="yellow" if doubtful else "", overflow="fold")
    labels = [label.class_name for reading in region.readings for label in reading.labels]
    errors_of = [reading.error.message for reading in region.readings if reading.error]
    if errors_of:
        return Text(errors_of[0], style="red")
    if labels:
        return Text(", ".join(labels))
    data = {reading.step: reading.data for reading in region.readings if reading.data is not None}
    return Text(json.dumps(data, ensure_ascii=False), overflow="fold") if data else Text("-", style="dim")


def _confidence(region: Region) -> str:
    value = region.text_confidence if region.text else region.confidence
    return f"{value:.2f}"


def _box(region: Region) -> str:
    return " ".join(f"{value:.0f}" for value in region.box)
