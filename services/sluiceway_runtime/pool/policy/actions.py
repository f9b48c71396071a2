"""What the scheduler wants done. The shell around it carries these out and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sluiceway_runtime.errors import SluicewayError
    from sluiceway_runtime.pool.policy.items import Item

__all__ = [
    "Action",
    "Dispatch",
    "Fail",
    "GiveUp",
    "KillWorker",
    "Note",
    "Recall",
    "Refuse",
    "StartWorker",
    "StopWorker",
    "Succeed",
]


# Actions of which there is one for each batch are tuples: those are made in half the time.


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


class Dispatch(NamedTuple):
    """Send these items to a worker as one batch."""

    worker: int
    batch_id: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Recall:
    """Tell a worker that nobody waits any more for the items at these positions of a batch that it may not have begun.

    Its results come all the same, with `TAKEN_BACK` in the place of what it did not compute.
    """

    worker: int
    batch_id: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """These of the items that just arrived are not accepted."""

    items: Sequence[Item]
    error: SluicewayError


class Succeed(NamedTuple):
    """Answer accepted items that were computed together.

    Attributes:
        items: which.
        results: one for each.
        queue_ms: how long each had waited.
        compute_ms: of the batch.
        worker: that computed it.
    """

    items: list[Item]
    results: list[Any]
    queue_ms: list[float]
    compute_ms: float
    worker: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer accepted items with an error."""

    items: Sequence[Item]
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The pool cannot start; the message tells why. `CloseRequested` should follow."""

    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the operator should find in the log.

    Attributes:
        request_id: of the request that it is about; empty where it is about none.
    """

    message: str
    request_id: str = ""


Action = StartWorker | StopWorker | KillWorker | Dispatch | Recall | Refuse | Succeed | Fail | GiveUp | Note
