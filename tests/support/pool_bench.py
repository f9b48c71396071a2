"""Pools of either kind for tests, and short ways to ask them."""

from __future__ import annotations

import asyncio
from typing import Any

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.pool import (
    Payload,
    Placement,
    Pool,
    PoolLimits,
    Priority,
    Timing,
    WorkerSpec,
)
from sluiceway_runtime.pool.testing import InProcessPool

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=1.0)
KINDS = {"process": Pool, "thread": InProcessPool}


def make_pool(
    factory: str = "pool_handlers:Scripted",
    *,
    kind: type[Pool] = Pool,
    workers: int = 1,
    credits_each: int = 1,
    overlap: int = 1,
    config: dict[str, Any] | None = None,
    timing: Timing = QUICK,
    **limits: Any,
) -> Pool:
    """A pool that is not started yet, whose workers need no device."""
    placements = tuple(Placement(index, "cpu", None, 1) for index in range(workers))
    spec = WorkerSpec(factory, config or {}, placements, credits_each, overlap=overlap)
    return kind(spec, PoolLimits(**limits), name="test", timing=timing)


def pids(pool: Pool) -> list[int]:
    """Of its workers."""
    return [worker.pid for worker in pool.statistics().workers if worker.pid is not None]


class Bench:
    """Makes pools of one kind, and closes them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.pools: list[Pool] = []

    def make(self, *, config: dict[str, Any] | None = None, **options: Any) -> Pool:
        settings = {"in_process": self._kind == "thread", **(config or {})}
        self.pools.append(make_pool(kind=KINDS[self._kind], config=settings, **options))
        return self.pools[-1]

    async def start(self, **options: Any) -> Pool:
        pool = self.make(**options)
        await pool.start()
        return pool


def submit(
    pool: Pool,
    *,
    buffers: tuple[Any, ...] = (),
    within: float = 20.0,
    request_id: str = "r",
    priority: Priority = Priority.NORMAL,
    group: Any = None,
    cost: int = 1,
    **meta: Any,
) -> asyncio.Future[Any]:
    return pool.submit(
        Payload(meta, buffers),
        request_id=request_id,
        deadline=Deadline.after(within),
        priority=priority,
        group=group,
        cost=cost,
    )
