"""What happens to a source, as the flow tells it and before it becomes a message.

`opaque` fields hold parts of stage answers that go to the client as they came; only `convert` and `clients` look
inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sluiceway_runtime.errors import SluicewayError

from sluiceway_orchestrator.wire import CropSpan

__all__ = [
    "Crops",
    "Detected",
    "Event",
    "ImageReady",
    "JobDone",
    "Model",
    "Recognized",
    "SourceDone",
    "SourceFailed",
    "StageTimings",
]


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of the weights behind an answer."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Milliseconds inside a stage."""

    queue_ms: float = 0.0
    compute_ms: float = 0.0
    total_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageReady:
    """The image of a source is here."""

    size_bytes: int
    fetch_ms: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_errors: Mapping[str, SluicewayError] = field(default_factory=dict)
    image: bytes = b""


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops for one model, still inside the message that brought them."""

    model: str
    message: bytes
    spans: tuple[CropSpan, ...]


@dataclass(frozen=True, slots=True)
class Detected:
    """What detection found.

    Attributes:
        opaque: the detections, as the stage described them.
        ids: ids of the detections.
        boxes_xyxy_px: upright boxes around the detections, in the order of `ids`.
        crops: one entry for each model that will read some of them.
    """

    width: int
    height: int
    opaque: Any
    ids: tuple[int, ...]
    boxes_xyxy_px: Sequence[tuple[float, float, float, float]]
    crops: tuple[Crops, ...]
    model: Model
    timings: StageTimings


@dataclass(frozen=True, slots=True)
class Recognized:
    """What recognition read.

    Attributes:
        opaque: the recognitions, as the stage described them.
        ids: ids of the detections that they belong to.
        failed: how many of them are errors.
    """

    model: str
    opaque: list[Any]
    ids: tuple[int, ...]
    failed: int


@dataclass(frozen=True, slots=True)
class SourceDone:
    """A source is finished."""

    reading_order: tuple[int, ...]
    fetch_ms: float
    detection: StageTimings
    recognition: StageTimings
    total_ms: float
    models: tuple[Model, ...]
    failed_recognitions: int


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A source failed."""

    error: SluicewayError


@dataclass(frozen=True, slots=True)
class JobDone:
    """Every source of a job is finished."""

    succeeded: int
    failed: int
    error: SluicewayError | None = None


Event = ImageReady | Detected | Recognized | SourceDone | SourceFailed | JobDone
