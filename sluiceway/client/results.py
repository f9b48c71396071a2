"""What becomes of a source: frozen, typed, and free of gRPC."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sluiceway.client.notebooks import as_html
from sluiceway.client.regions import Box, Reading, Region, error_to_dict, reading_to_dict
from sluiceway.errors import SluicewayError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Block", "Line", "Model", "Notice", "Page", "Result", "StageTimings", "StepReport", "Timings", "to_pandas"]

# Halves of a letter that stand alone, as in file names: JSON can name them, and no encoding of Unicode can hold them.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a source; an image has one.

    Attributes:
        width: in pixels, after EXIF orientation.
        height: likewise.
        index: its number, from 0.
        rotation: how many degrees its content is turned clockwise, a multiple of 90; boxes are in the page as it came.
    """

    width: int
    height: int
    index: int = 0
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text: its regions in reading order, by id."""

    region_ids: tuple[int, ...]
    page: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together, by their positions in `Result.lines`, in reading order."""

    lines: tuple[int, ...]
    page: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person should know of a result: what was given up, cut off or changed. `reason` is for programs."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    page: int = 0


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Where the time of one step went, in milliseconds."""

    queue_ms: float = 0.0
    compute_ms: float = 0.0
    total_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one source went, in milliseconds; `total_ms` runs from acceptance to the last event.

    `steps` has one entry for each step that ran, in the order of the pipeline.
    """

    fetch_ms: float = 0.0
    steps: Mapping[str, StageTimings] = field(default_factory=dict)
    total_ms: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain data, as in the output of `sluiceway run --json`."""
        plain = {"fetch": self.fetch_ms}
        for name, step in self.steps.items():
            plain |= {f"{name}_queue": step.queue_ms, f"{name}_compute": step.compute_ms, name: step.total_ms}
        plain["total"] = self.total_ms
        return {name: round(value, 3) for name, value in plain.items()}


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of a model that took part: equal hashes mean equal weights."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class StepReport:
    """How one step went: where its time went, the models that took part, and how many regions or calls failed."""

    step: str
    timings: StageTimings = field(default_factory=StageTimings)
    models: tuple[Model, ...] = ()
    failed: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What became of one source.

    Attributes:
        source: as it was given.
        pages: by their number.
        regions: in reading order: lines from top to bottom, from left to right within a line; regions that were found
            in another one come right behind it.
        timings: where the time went.
        steps: how each step went, in the order of the pipeline.
        values: what APIs said of the source, by the name of the call or of the call step.
        value_errors: calls about the source that failed, by the same names.
        page_values: what steps said of whole pages, by number of the page and name of the step.
        lines: of text, in reading order.
        blocks: of lines, in reading order.
        notices: what was given up, cut off or changed.
        image: bytes of a fetched image, if `return_images` was set.
        error: why the source failed; then the rest holds what was known by then.
        request_id: by which the logs of the servers know it.
    """

    source: str
    pages: tuple[Page, ...] = ()
    regions: tuple[Region, ...] = ()
    timings: Timings = field(default_factory=Timings)
    steps: tuple[StepReport, ...] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    value_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    page_values: Mapping[int, Mapping[str, Reading]] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    notices: tuple[Notice, ...] = ()
    image: bytes | None = field(default=None, repr=False)
    error: SluicewayError | None = None
    request_id: str = ""

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Result {self.source!r} failed: {self.error.reason}: {self.error.message}>"
        pages = f", {len(self.pages)} pages" if len(self.pages) > 1 else ""
        size = f"{self.width}x{self.height}{pages}"
        return f"<Result {self.source!r} {size}, {len(self.regions)} regions, {self.timings.total_ms:.0f} ms>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the fetched image, if there is one, and a table of the regions."""
        return as_html(repr(self).strip("<>"), self.regions, self.image)

    @property
    def ok(self) -> bool:
        """Whether the source was processed."""
        return self.error is None

    @property
    def width(self) -> int:
        """Of the first page, in pixels; 0 where none is known."""
        return self.pages[0].width if self.pages else 0

    @property
    def height(self) -> int:
        """Of the first page, in pixels; 0 where none is known."""
        return self.pages[0].height if self.pages else 0

    @property
    def text(self) -> str:
        """All text in reading order: a line break behind each line, an empty line between blocks."""
        if not self.lines:
            # Nothing was read, or by a server that knows no lines.
            return "\n".join(region.text for region in self.regions if region.text)
        texts = self.line_texts
        blocks = self.blocks or [Block(tuple(range(len(texts))))]
        paragraphs = ("\n".join(texts[at] for at in block.lines if at < len(texts)) for block in blocks)
        return "\n\n".join(paragraphs)

    @property
    def line_texts(self) -> list[str]:
        """The text of each of `lines`: that of its regions, with a space between them."""
        texts = {region.id: region.text for region in self.regions}
        return [" ".join(text for key in line.region_ids if (text := texts.get(key))) for line in self.lines]

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that took part, each once."""
        return tuple(dict.fromkeys(model for step in self.steps for model in step.models))

    @property
    def roots(self) -> tuple[Region, ...]:
        """The regions that were found in a page itself, in reading order."""
        known = {region.id for region in self.regions}
        return tuple(region for region in self.regions if region.parent_id not in known)

    def children(self, region: Region) -> tuple[Region, ...]:
        """Return the regions that were found in a region, in reading order."""
        return tuple(item for item in self.regions if item.parent_id == region.id)

    @property
    def depths(self) -> Mapping[int, int]:
        """How deep each region lies in the tree, by id: 0 for those of a page itself."""
        depths: dict[int, int] = {}
        # In reading order a region stands before what was found in it.
        for region in self.regions:
            above = None if region.parent_id is None else depths.get(region.parent_id)
            depths[region.id] = 0 if above is None else above + 1
        return depths

    def raise_for_error(self) -> Result:
        """Return this result, or raise its error if it has one."""
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data: one line of the output of `sluiceway run --json`."""
        if self.error is not None:
            return {"source": self.source, "status": "failed", "error": error_to_dict(self.error, whole=True)}
        many = len(self.pages) > 1
        plain: dict[str, Any] = {
            "source": self.source,
            "status": "ok",
            "width": self.width,
            "height": self.height,
            "regions": [region.to_dict() | ({"page": region.page} if many else {}) for region in self.regions],
        }
        if self.values:
            plain["values"] = dict(self.values)
        if self.value_errors:
            plain["value_errors"] = {name: error_to_dict(error) for name, error in self.value_errors.items()}
        if self.page_values:
            plain["page_values"] = {
                str(page): {step: reading_to_dict(reading) for step, reading in said.items()}
                for page, said in self.page_values.items()
            }
        if many:
            plain["pages"] = [
                {"index": page.index, "width": page.width, "height": page.height, "rotation": page.rotation}
                for page in self.pages
            ]
        if self.lines:
            plain["lines"] = [
                {"regions": list(line.region_ids), "text": text, "page": line.page}
                for line, text in zip(self.lines, self.line_texts, strict=True)
            ]
        if self.blocks:
            plain["blocks"] = [{"lines": list(block.lines), "page": block.page} for block in self.blocks]
        if self.notices:
            plain["notices"] = [
                {"reason": item.reason, "message": item.message, "metadata": dict(item.metadata), "page": item.page}
                for item in self.notices
            ]
        plain["models"] = [
            {"name": model.name, "version": model.version, "weights_sha256": model.weights_sha256}
            for model in self.models
        ]
        if self.request_id:
            plain["request_id"] = self.request_id
        plain["timings_ms"] = self.timings.to_dict()
        return plain

    def to_json(self) -> str:
        """Return the same as `to_dict`, as one line of JSON that UTF-8 can hold.

        Bytes of file names that are not UTF-8 stay what Python made of them, written as JSON writes what it has no
        letter for (`\\udcfc`): read back, `os.fsencode` gives the name as it was.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False)
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each region; needs pandas."""
        return to_pandas([self])


def to_pandas(results: Iterable[Result]) -> pd.DataFrame:
    """Put the regions of many results into one table.

    Args:
        results: failed ones add no rows.

    Returns:
        Columns source, page, region, parent, step, x0, y0, x1, y1, class, confidence, text, text_confidence; one row
        for each region.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    import pandas as pd  # noqa: PLC0415 - optional, and slow to import

    columns = [
        "source", "page", "region", "parent", "step", *Box._fields, "class", "confidence", "text", "text_confidence"
    ]  # fmt: skip
    rows = [
        (
            item.source, region.page, region.id, region.parent_id, region.step, *region.box, region.class_name,
            region.confidence, region.text, region.text_confidence,
        )
        for item in results
        for region in item.regions
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
