"""What happens to a job, the moment it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sluiceway.client.results import Model, Reading, Region, Timings
from sluiceway.errors import SluicewayError

__all__ = ["Detected", "Event", "ImageReady", "JobDone", "Recognized", "SourceDone", "SourceFailed"]


@dataclass(frozen=True, slots=True)
class ImageReady:
    """The image of a source is there and about to be detected."""

    source: str
    size_bytes: int
    fetch_ms: float
    metadata: Mapping[str, str]
    metadata_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Detected:
    """The regions of a source, by falling confidence and without text; `recognizing` names those that will get some."""

    source: str
    width: int
    height: int
    regions: tuple[Region, ...]
    recognizing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recognized:
    """What one model read in some regions, by region id."""

    source: str
    readings: Mapping[int, Reading]


@dataclass(frozen=True, slots=True)
class SourceDone:
    """A source is finished."""

    source: str
    reading_order: tuple[int, ...]
    timings: Timings
    models: tuple[Model, ...]
    failed_recognitions: int


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A source failed; what came of it before stands."""

    source: str
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class JobDone:
    """Every source is done or failed. Always last. `error` is set if the job was refused as a whole."""

    succeeded: int
    failed: int
    error: SluicewayError | None = None


Event = ImageReady | Detected | Recognized | SourceDone | SourceFailed | JobDone
