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
    """The item just submitted is not accepted."""

    item_id: int
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class Succeed:
    """Answer an accepted item."""

    item_id: int
    result: Any
    queue_ms: float
    compute_ms: float
    worker: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer an accepted item with an error."""

    item_id: int
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
