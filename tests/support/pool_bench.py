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


class Bench:
    """Makes pools of one kind, and closes them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.pools: list[Pool] = []

    def make(
        self,
        *,
        workers: int = 1,
        credits_each: int = 1,
        factory: str = "pool_handlers:Scripted",
        config: dict[str, Any] | None = None,
        **limits: Any,
    ) -> Pool:
        placements = tuple(Placement(index, "cpu", None, 1) for index in range(workers))
        settings = {"in_process": self._kind == "thread", **(config or {})}
        spec = WorkerSpec(factory, settings, placements, credits_each)
        pool = KINDS[self._kind](spec, PoolLimits(**limits), name="test", timing=QUICK)
        self.pools.append(pool)
        return pool

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


async def until(condition: Any, within: float = 30.0) -> None:
    """Poll what no event tells of: a file that a worker writes."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
