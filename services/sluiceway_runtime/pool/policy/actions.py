"""What the scheduler wants done. The shell around it carries these out and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluiceway_runtime.errors import SluicewayError

__all__ = [
    "Action",
    "Dispatch",
    "Fail",
    "GiveUp",
    "KillWorker",
    "Note",
    "Refuse",
    "StartWorker",
    "StopWorker",
    "Succeed",
]


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start the process of a worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Ask a worker to exit (SIGTERM)."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker now (SIGKILL)."""

    worker: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these items to a worker as one batch."""

    worker: int
    batch_id: int
    item_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """These of the items just submitted are not accepted."""

    item_ids: tuple[int, ...]
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class Succeed:
    """Answer accepted items that were computed together.

    Attributes:
        item_ids: which.
        results: one for each.
        queue_ms: how long each had waited.
        compute_ms: of the batch.
        worker: that computed it.
    """

    item_ids: list[int]
    results: list[Any]
    queue_ms: list[float]
    compute_ms: float
    worker: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer accepted items with an error."""

    item_ids: tuple[int, ...]
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The pool cannot start; the message tells why. `CloseRequested` should follow."""

    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the operator should find in the log."""

    message: str


Action = StartWorker | StopWorker | KillWorker | Dispatch | Refuse | Succeed | Fail | GiveUp | Note
