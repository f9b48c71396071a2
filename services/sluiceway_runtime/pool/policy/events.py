"""What happens to a pool, as the scheduler hears of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from sluiceway_runtime.errors import SluicewayError
    from sluiceway_runtime.pool.policy.items import Item

__all__ = [
    "TAKEN_BACK",
    "BatchDone",
    "BatchLost",
    "BatchRaised",
    "CancelRequested",
    "CloseRequested",
    "DrainRequested",
    "Event",
    "ItemsArrived",
    "SetupFailed",
    "StartRequested",
    "Tick",
    "WorkerDied",
    "WorkerLeaving",
    "WorkerReady",
]


# Events of which there is one for each batch or call are tuples: those are made in half the time.

# In the place of a result.
TAKEN_BACK: Final = None


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Start the workers. The first event of a pool."""


class ItemsArrived(NamedTuple):
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


class BatchDone(NamedTuple):
    """A batch was computed.

    `results` has one entry per item: a `SluicewayError` where the item failed, `TAKEN_BACK` where it was not computed
    as nobody waited for it any more.
    """

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
class BatchLost:
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
        never_reached: batches dispatched to it that did not come to it, and so have no part in its end.
        broken: it said before that it can compute no more, as a device does that is lost.
    """

    worker: int
    reason: str
    never_reached: frozenset[int] = frozenset()
    broken: bool = False


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Take no new items; finish the accepted ones."""


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """Fail what is left and stop the workers. The last event that anything new follows from."""


Event = (
    StartRequested
    | ItemsArrived
    | CancelRequested
    | Tick
    | WorkerReady
    | SetupFailed
    | BatchDone
    | BatchRaised
    | BatchLost
    | WorkerLeaving
    | WorkerDied
    | DrainRequested
    | CloseRequested
)
