"""What happens to a pool, as the scheduler hears of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluiceway_runtime.priority import Priority

if TYPE_CHECKING:
    from sluiceway_runtime.errors import SluicewayError

__all__ = [
    "BatchDone",
    "BatchRaised",
    "BatchUndelivered",
    "CancelRequested",
    "CloseRequested",
    "DrainRequested",
    "Event",
    "Item",
    "SetupFailed",
    "StartRequested",
    "Submitted",
    "Tick",
    "WorkerDied",
    "WorkerLeaving",
    "WorkerReady",
]


@dataclass(slots=True, eq=False)
class Item:
    """One piece of work as the scheduler knows it; the payload stays outside.

    Not frozen, as that doubles the time it takes to make one; whoever submits it leaves it alone.

    Attributes:
        id: never used twice in the life of a pool.
        request_id: items are served fairly between requests.
        group: only items of one group share a batch.
        cost: counts against `max_batch_cost`.
        size_bytes: counts against `queue_bytes`.
        deadline_s: on the scheduler's clock.
        digest: the content's hash. It is called only where a worker has died, as hashing costs time.
        accepted_s: the ledger's note of when it was taken.
        dispatched_s: the ledger's note of its last try, None while it has not been with a worker.
        level: the queue's note of the class that it waits in, None while it does not wait there.
        entered_s: the queue's note of when it came into that class.
    """

    id: int
    request_id: str
    deadline_s: float
    priority: Priority = Priority.NORMAL
    group: Hashable = None
    cost: int = 1
    size_bytes: int = 0
    digest: Callable[[], str] = lambda: ""
    accepted_s: float = 0.0
    dispatched_s: float | None = None
    level: int | None = None
    entered_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Start the workers. The first event of a pool."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """New items of one request, deadline and priority. Each is queued or refused.

    Once one is refused for want of room or time, those after it are refused with it. Dispatching waits for the next
    event, so that a burst can share a batch.
    """

    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Nobody waits for these items any more."""

    item_ids: Iterable[int]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has loaded and warmed up. `memory_bytes` is its resident memory."""

    worker: int
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SetupFailed:
    """A worker's `setup` raised; the process is about to end. Trying again would give the same."""

    worker: int
    message: str


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch was computed. `results` has one entry per item, a `SluicewayError` where the item failed."""

    worker: int
    batch_id: int
    results: tuple[Any, ...]
    compute_ms: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BatchRaised:
    """The handler raised: one item of the batch may be to blame."""

    worker: int
    batch_id: int
    message: str


@dataclass(frozen=True, slots=True)
class BatchUndelivered:
    """The batch or its results could not be passed on, which says nothing about the items."""

    worker: int
    batch_id: int
    error: SluicewayError


@dataclass(frozen=True, slots=True)
class WorkerLeaving:
    """A worker was asked to exit (by us or by somebody else) and starts no further batch."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker's process has ended. Everything that it had sent before has been reported.

    Attributes:
        undelivered: batches dispatched to it that never reached it, and so have no part in its end.
    """

    worker: int
    reason: str
    undelivered: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Take no new items; finish the accepted ones."""


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """Fail what is left and stop the workers. The last event that anything new follows from."""


Event = (
    StartRequested
    | Submitted
    | CancelRequested
    | Tick
    | WorkerReady
    | SetupFailed
    | BatchDone
    | BatchRaised
    | BatchUndelivered
    | WorkerLeaving
    | WorkerDied
    | DrainRequested
    | CloseRequested
)
