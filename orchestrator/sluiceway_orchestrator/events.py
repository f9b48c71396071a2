"""What happens to a source, as the executor tells it and before it becomes a message.

`regions` and `values` hold messages of the contract, made once where a stage's answer is read; only `convert` and the
stages' clients look inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from sluiceway_runtime.errors import SluicewayError

from sluiceway_orchestrator.job import Buffer

__all__ = [
    "PLAIN_RUN",
    "Event",
    "JobDone",
    "JobRefused",
    "Model",
    "Page",
    "RegionsFound",
    "SourceDone",
    "SourceFailed",
    "SourceReady",
    "StageTimings",
    "StepReport",
    "Subject",
    "TextRun",
    "ValuesRead",
]


class Model(NamedTuple):
    """Identity of the weights behind an answer."""

    name: str
    version: str
    weights_sha256: str


class StageTimings(NamedTuple):
    """Milliseconds inside a stage, and on the way to it.

    Attributes:
        total_ms: inside of the stage; of a whole step, from its first call to its last answer.
        batch_ms: with a worker and not computed: before its batch was begun, or until the answer left.
        backlog_ms: in the orchestrator, waiting for a replica.
        transfer_ms: on the way there and back.
    """

    queue_ms: float = 0.0
    compute_ms: float = 0.0
    total_ms: float = 0.0
    decode_ms: float = 0.0
    batch_ms: float = 0.0
    backlog_ms: float = 0.0
    transfer_ms: float = 0.0


class Subject(Enum):
    """What values are about."""

    REGION = "region"
    PAGE = "page"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a source; sizes in pixels, after EXIF orientation."""

    index: int = 0
    width: int = 0
    height: int = 0
    rotation_degrees: int = 0


@dataclass(frozen=True, slots=True)
class SourceReady:
    """A source is here, with what APIs said of it.

    Attributes:
        values_bytes: of the values, about.
    """

    size_bytes: int
    fetch_ms: float = 0.0
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    call_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    image: Buffer = b""
    values_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RegionsFound:
    """What a detection step found.

    Attributes:
        regions: a `Regions` message with the regions, their ids and parents those of the source.
        recognizing: ids of those that will be read.
        size_bytes: of the message, about.
    """

    step: str
    page: Page
    regions: Any
    recognizing: Sequence[int]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ValuesRead:
    """What a step said of regions, of the page, or of the source.

    Attributes:
        values: a `Values` message with the values, their ids those of the source.
        count: how many.
        size_bytes: of the message, about.
    """

    step: str
    model: str
    values: Any
    count: int
    size_bytes: int
    subject: Subject = Subject.REGION
    page: int = 0


class TextRun(NamedTuple):
    """How the text of a region runs.

    Attributes:
        rotation_degrees: how far it is turned clockwise in its region.
        leftwards: whether most of it runs from right to left.
        may_run_down: whether it is turned, and most of it of a script that is written in columns, too.
    """

    rotation_degrees: int = 0
    leftwards: bool = False
    may_run_down: bool = False


PLAIN_RUN = TextRun()
"""From left to right. Nearly all text runs so, and is found by asking for this very object."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """How one step went."""

    step: str
    timings: StageTimings
    models: tuple[Model, ...]
    failed: int


@dataclass(frozen=True, slots=True)
class SourceDone:
    """A source is finished.

    Attributes:
        lines: ids of the regions of each.
        blocks: positions of the lines of each.
        line_pages: page of each line; empty where all are of the first page.
        notices: `Notice` messages.
    """

    reading_order: Sequence[int]
    fetch_ms: float
    total_ms: float
    steps: tuple[StepReport, ...]
    notices: Sequence[Any] = ()
    lines: Sequence[Sequence[int]] = ()
    blocks: Sequence[Sequence[int]] = ()
    line_pages: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A source failed."""

    error: SluicewayError


@dataclass(frozen=True, slots=True)
class JobDone:
    """Every source of a job is finished."""

    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class JobRefused:
    """A job of a stream did not run."""

    error: SluicewayError


Event = SourceReady | RegionsFound | ValuesRead | SourceDone | SourceFailed | JobDone | JobRefused
