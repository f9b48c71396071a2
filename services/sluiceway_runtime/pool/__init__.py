"""Worker processes behind a queue: the pure scheduler, and the little around it that carries out what it decides.

`scheduler` decides (with `queue`, `retries`, `ledger`, `workforce`, `slots`, `quarantine`, `rate`), `pool` carries out,
`process` and `worker` are the two ends of a worker, `channel` and `messages` what passes between them.
"""

from __future__ import annotations

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.pool.handler import Handler
from sluiceway_runtime.pool.payload import Buffer, Payload
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing, queue_items_for
from sluiceway_runtime.pool.policy.statistics import Counters, PoolLoad, PoolStatistics, WorkerState, WorkerStatistics
from sluiceway_runtime.pool.pool import Pool
from sluiceway_runtime.pool.spec import WorkerSpec
from sluiceway_runtime.pool.submission import Answers, Outcome, Submission, Work
from sluiceway_runtime.priority import Priority

__all__ = [
    "Answers",
    "Buffer",
    "Counters",
    "Handler",
    "Outcome",
    "Payload",
    "Placement",
    "Pool",
    "PoolLimits",
    "PoolLoad",
    "PoolStatistics",
    "Priority",
    "Submission",
    "Timing",
    "Work",
    "WorkerSpec",
    "WorkerState",
    "WorkerStatistics",
    "queue_items_for",
]
