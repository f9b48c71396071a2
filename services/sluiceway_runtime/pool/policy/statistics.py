"""What a pool tells about itself: immutable snapshots, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

__all__ = ["Counters", "Ending", "PoolLoad", "PoolStatistics", "WorkerState", "WorkerStatistics"]


class WorkerState(Enum):
    """Life of a worker. `BACKOFF` is between two processes; `STOPPED` is final."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # finishes what it holds, gets nothing new
    STOPPING = "stopping"  # told to exit
    KILLED = "killed"  # sent SIGKILL; its end has not been seen yet
    BACKOFF = "backoff"
    STOPPED = "stopped"


class Ending(Enum):
    """Why a process of a worker ended, of which another was to follow."""

    DIED = "died"
    HUNG = "hung"  # computed one batch for too long
    START = "start"  # was not ready in time, or said that it cannot be
    MEMORY = "memory"  # had grown too large
    TOLD = "told"  # somebody sent it SIGTERM


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker; counts are over all its processes, of which `restarts` came after the first.

    Attributes:
        busy_s: how long it has had something to compute, the present batch included.
        endings: of its processes, by why.
    """

    index: int
    pid: int | None
    state: WorkerState
    batches: int
    items: int
    restarts: int
    busy_s: float = 0.0
    endings: Mapping[Ending, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the pool was made. accepted = succeeded + failed + expired + cancelled + those still in the pool.

    Attributes:
        failed: answered with an error: the item's own, ModelFailed, Quarantined, Unavailable.
        quarantined: of the failed, those that killed a worker while alone with it.
        deaths: workers that ended without being told to.
        recycled: workers replaced for their memory, or because somebody sent them SIGTERM.
    """

    accepted: int = 0
    refused: int = 0
    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    quarantined: int = 0
    batches: int = 0
    deaths: int = 0
    recycled: int = 0


class PoolLoad(NamedTuple):
    """How busy a pool is; the fields are those of `PoolStatistics`."""

    queued: int
    running: int
    capacity: int
    queue_ms: float


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment.

    Attributes:
        queued: items waiting.
        queued_bytes: their payloads.
        running: items with workers.
        capacity: items that the ready workers can hold at once; 0 on a machine that is taken to be ill.
        queue_ms: wait of the item that waits the longest; 0 while none does.
        workers: by index.
        counters: totals.
        item_ms: smoothed time that one worker takes for one item, its share of a batch; 0 until known.
        oldest_wait_s: wait of the item that waits the longest, in the queue or with a worker that computes another
            batch first; 0 while none does.
        able: whether a worker takes work, on a machine that is not taken to be ill.
    """

    queued: int
    queued_bytes: int
    running: int
    capacity: int
    queue_ms: float
    workers: tuple[WorkerStatistics, ...]
    counters: Counters
    item_ms: float = 0.0
    oldest_wait_s: float = 0.0
    able: bool = False

    @property
    def ready_workers(self) -> int:
        """Workers that can take work now."""
        return sum(worker.state is WorkerState.READY for worker in self.workers)

    def totals(self) -> Mapping[str, int]:
        """The counters by name, for metrics."""
        return {name: getattr(self.counters, name) for name in Counters.__dataclass_fields__}
