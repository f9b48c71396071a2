"""What comes back: frozen, typed, and free of gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sluiceway.errors import SluicewayError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Box", "Character", "Label", "Model", "Reading", "Region", "Result", "StageTimings", "Timings", "to_pandas"]


class Box(NamedTuple):
    """An upright rectangle in pixels of the original image, origin top left; (x1, y1) is the outer corner."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Horizontal extent in pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Vertical extent in pixels."""
        return self.y1 - self.y0

    def __str__(self) -> str:
        return "({:.1f}, {:.1f}, {:.1f}, {:.1f})".format(*self)


@dataclass(frozen=True, slots=True)
class Character:
    """One character of a text and how sure the model is of it, (0, 1]."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Label:
    """One candidate class of a classifier and its probability, [0, 1]."""

    class_id: int
    class_name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one recognition model made of one region.

    Attributes:
        model: name of the model.
        text: what was read; None for models that do not read.
        confidence: of the text, or of the best label; 0 for an empty text.
        characters: the text one by one, if `characters` was asked for.
        labels: the best classes of a classifier, the most probable first.
        embedding: a vector of length 1.
        error: why this region could not be recognised.
    """

    model: str
    text: str | None = None
    confidence: float = 0.0
    characters: tuple[Character, ...] = ()
    labels: tuple[Label, ...] = ()
    embedding: tuple[float, ...] = ()
    error: SluicewayError | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """One thing found in an image.

    Attributes:
        id: names it within its image; 0, 1, 2, … by falling confidence.
        box: where it is; for other shapes, the upright rectangle around it.
        class_name: what it is.
        class_id: the same as a number of the model.
        confidence: of the detection, (0, 1].
        outline: corners clockwise, in pixels; four for a box.
        readings: what the recognisers said of it, one for each model; empty where none reads this class.
    """

    id: int
    box: Box
    class_name: str
    class_id: int
    confidence: float
    outline: tuple[tuple[float, float], ...]
    readings: tuple[Reading, ...] = ()

    @property
    def text(self) -> str | None:
        """What was read; None if nothing reads this class, or reading failed."""
        reading = self._text_reading()
        return reading.text if reading else None

    @property
    def text_confidence(self) -> float | None:
        """Mean confidence of the characters, [0, 1]; None where there is no text."""
        reading = self._text_reading()
        return reading.confidence if reading else None

    def _text_reading(self) -> Reading | None:
        return next((reading for reading in self.readings if reading.text is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `sluiceway run --json`."""
        plain: dict[str, Any] = {
            "box": [round(value, 2) for value in self.box],
            "class": self.class_name,
            "confidence": round(self.confidence, 4),
            "text": self.text,
            "text_confidence": None if self.text_confidence is None else round(self.text_confidence, 4),
        }
        labels = [label for reading in self.readings for label in reading.labels]
        if labels:
            plain["labels"] = [{"class": item.class_name, "confidence": round(item.confidence, 4)} for item in labels]
        embedding = next((reading.embedding for reading in self.readings if reading.embedding), None)
        if embedding:
            plain["embedding"] = list(embedding)
        error = next((reading.error for reading in self.readings if reading.error), None)
        if error:
            plain["error"] = error_to_dict(error)
        return plain


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Where the time in one stage went, in milliseconds."""

    queue_ms: float = 0.0
    compute_ms: float = 0.0
    total_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one source went, in milliseconds; `total_ms` runs from acceptance to the last event."""

    fetch_ms: float = 0.0
    detection: StageTimings = field(default_factory=StageTimings)
    recognition: StageTimings = field(default_factory=StageTimings)
    total_ms: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain data, as in the output of `sluiceway run --json`."""
        plain = {"fetch": self.fetch_ms}
        for name, stage in (("detection", self.detection), ("recognition", self.recognition)):
            plain |= {f"{name}_queue": stage.queue_ms, f"{name}_compute": stage.compute_ms, name: stage.total_ms}
        plain["total"] = self.total_ms
        return {name: round(value, 3) for name, value in plain.items()}


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of a model that took part: equal hashes mean equal weights."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one source.

    Attributes:
        source: as it was given.
        width: of the image in pixels, after EXIF orientation.
        height: likewise.
        regions: in reading order: lines from top to bottom, from left to right within a line.
        timings: where the time went.
        models: what took part.
        metadata: what the APIs handed back, by "API.FIELD".
        metadata_errors: APIs that were asked for metadata alone and failed.
        image: bytes of a fetched image, if `return_images` was set.
        error: why the source failed; then the rest holds what was known by then.
    """

    source: str
    width: int = 0
    height: int = 0
    regions: tuple[Region, ...] = ()
    timings: Timings = field(default_factory=Timings)
    models: tuple[Model, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    image: bytes | None = field(default=None, repr=False)
    error: SluicewayError | None = None

    @property
    def ok(self) -> bool:
        """Whether the source was processed."""
        return self.error is None

    @property
    def text(self) -> str:
        """All text in reading order, one region a line."""
        return "\n".join(region.text for region in self.regions if region.text)

    def raise_for_error(self) -> Result:
        """Return this result, or raise its error if it has one."""
        if self.error is not None:
            raise self.error
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data: one line of the output of `sluiceway run --json`."""
        if self.error is not None:
            return {"source": self.source, "status": "failed", "error": error_to_dict(self.error)}
        return {
            "source": self.source,
            "status": "ok",
            "width": self.width,
            "height": self.height,
            "regions": [region.to_dict() for region in self.regions],
            "timings_ms": self.timings.to_dict(),
        }

    def to_json(self) -> str:
        """Return the same as `to_dict`, as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each region; needs pandas."""
        return to_pandas([self])


def error_to_dict(error: SluicewayError) -> dict[str, str]:
    """Plain data: what programs need to know of a failure."""
    return {"code": error.code, "reason": error.reason, "message": error.message}


def to_pandas(results: Iterable[Result]) -> pd.DataFrame:
    """Put the regions of many results into one table.

    Args:
        results: failed ones add no rows.

    Returns:
        Columns source, region, x0, y0, x1, y1, class, confidence, text, text_confidence; one row for each region.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    import pandas as pd  # noqa: PLC0415 - optional, and slow to import

    columns = ["source", "region", *Box._fields, "class", "confidence", "text", "text_confidence"]
    rows = [
        (item.source, region.id, *region.box, region.class_name, region.confidence, region.text, region.text_confidence)
        for item in results
        for region in item.regions
    ]
    return pd.DataFrame(rows, columns=columns)
