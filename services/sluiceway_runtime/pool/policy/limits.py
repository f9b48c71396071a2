"""What bounds a pool: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PoolLimits", "Timing", "queue_items_for"]

# A caller gives a replica up to three times what it works on at once (`balancer` of the orchestrator).
CALLERS_WINDOWS = 12
QUEUE_ITEMS_LEAST = 256


@dataclass(frozen=True)
class PoolLimits:
    """The bounds of a pool.

    Attributes:
        max_batch: most items in a batch.
        max_batch_cost: most cost (as given to `submit`) in a batch, None for no bound. An item above it runs by itself.
        side_by_side: items that a worker computes at once, where more of them take longer in proportion; None where
            larger batches always pay. Where there are fewer requests than workers, these then share what waits in
            batches that shrink with it, to no less than this, so that they end together.
        mixes: what the items of one group leave free in a batch is filled with those of others; the handler sorts them.
            Without it all items of a batch are of one group.
        queue_items: most items waiting. Bulk work fills three quarters of it, so that other work finds room, or all of
            it with one request while nothing else waits.
        queue_bytes: most payload bytes waiting, likewise. An item above it is accepted while nothing else waits.
        batch_timeout_s: a worker that computes one batch for longer is replaced.
        start_timeout_s: a worker that is not ready by then is killed, and its start counts as failed.
        worker_memory_mb: a worker with more memory of its own than this after a batch is replaced; None for no bound.
            Memory that it shares with the front does not count, nor do the pages of files.
    """

    max_batch: int = 1
    max_batch_cost: int | None = None
    side_by_side: int | None = None
    mixes: bool = False
    queue_items: int = 256
    queue_bytes: int = 256 * 2**20
    batch_timeout_s: float = 60.0
    start_timeout_s: float = 120.0
    worker_memory_mb: int | None = None

    def __post_init__(self) -> None:
        if min(self.max_batch, self.queue_items, self.queue_bytes) < 1:
            raise ValueError("max_batch, queue_items and queue_bytes must be at least 1")
        if min(self.batch_timeout_s, self.start_timeout_s) <= 0:
            raise ValueError("batch_timeout_s and start_timeout_s must be positive")


@dataclass(frozen=True)
class Timing:
    """Every time constant of a pool that is not the operator's to set. Tests shrink them.

    Attributes:
        ageing_s: an item that waited this long in its priority class moves up one.
        restart_delay_s: wait before the second restart in a row; the first is immediate, each further one waits double.
        restart_delay_max_s: most wait between restarts.
        start_attempts: failed starts in a row after which a pool that was never ready gives up.
        recycle_delay_s: a worker that was replaced for its size is not replaced for it again before this; after twice
            that, if it is too large again by then, and so on.
        recycle_delay_max_s: most wait between two such replacements.
        verdict_s: how long an item is refused that ended a worker while alone with it.
        stop_grace_s: from SIGTERM to SIGKILL.
        retry_after_min_s: least `retry_after_s` of a refusal, so that clients do not spin.
        retry_after_max_s: most.
    """

    ageing_s: float = 2.0
    restart_delay_s: float = 0.2
    restart_delay_max_s: float = 30.0
    start_attempts: int = 3
    stop_grace_s: float = 5.0
    recycle_delay_s: float = 30.0
    recycle_delay_max_s: float = 3600.0
    verdict_s: float = 600.0
    retry_after_min_s: float = 0.02
    retry_after_max_s: float = 10.0


def queue_items_for(configured: int | Literal["auto"], capacity: int) -> int:
    """How many items may wait.

    A replica that refuses what orchestrators send because they think that it has room for it gets nothing for a while,
    and stands still: see docs/adr/0038.

    Args:
        configured: what the operator says.
        capacity: items that the workers hold at once.

    Returns:
        What is configured, or enough for what several orchestrators send that do not know of each other.
    """
    return configured if configured != "auto" else max(QUEUE_ITEMS_LEAST, CALLERS_WINDOWS * capacity)
