"""What happens to a job, the moment it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sluiceway.client.regions import Reading, Region
from sluiceway.client.results import Block, Line, Notice, Page, StepReport, Timings
from sluiceway.errors import SluicewayError

__all__ = ["Event", "JobDone", "Regions", "SourceDone", "SourceFailed", "SourceReady", "Subject", "Values"]


class Subject(StrEnum):
    """What values are about."""

    REGION = "region"
    PAGE = "page"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class SourceReady:
    """A source is there and the first steps begin.

    Attributes:
        source: its name.
        size_bytes: of the file.
        fetch_ms: time spent fetching it; 0 for what came with the request.
        values: what APIs answered, by the name of the call or of the call step.
        call_errors: calls that failed, by name.
        image: the file itself, if it was fetched and `return_images` was set.
    """

    source: str
    size_bytes: int
    fetch_ms: float
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    call_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Regions:
    """What a detection step found in a page, or in some of its regions, without readings.

    Attributes:
        source: its name.
        step: name of the step.
        page: where the regions are.
        regions: by falling confidence within their parent.
        recognizing: ids of those that recognition steps will read.
    """

    source: str
    step: str
    page: Page
    regions: tuple[Region, ...]
    recognizing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What one step said.

    Attributes:
        source: its name.
        step: name of the step.
        readings: what it said of regions, by their ids; empty if it is about a page or the source.
        reading: what it said of the page or the source; None if it is about regions.
        subject: what it is about.
        page: number of the page, from 0.
    """

    source: str
    step: str
    readings: Mapping[int, Reading]
    reading: Reading | None = None
    subject: Subject = Subject.REGION
    page: int = 0


@dataclass(frozen=True, slots=True)
class SourceDone:
    """A source is finished; `reading_order` has the ids of all its regions, children right behind their parent."""

    source: str
    reading_order: tuple[int, ...]
    timings: Timings
    steps: tuple[StepReport, ...] = ()
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    notices: tuple[Notice, ...] = ()


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


Event = SourceReady | Regions | Values | SourceDone | SourceFailed | JobDone
