"""What a cluster would do under a load."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sluiceway_simulation.clients import Client, Timed
from sluiceway_simulation.cluster import Cluster, ClusterPlan
from sluiceway_simulation.load import Load, arrivals
from sluiceway_simulation.machine import compute
from sluiceway_simulation.stages.pictures import Picture
from sluiceway_simulation.virtual_time import current_loop, simulate

__all__ = ["Prediction", "predict"]

# Before anything is counted: queues fill, and estimates and rates are learnt.
WARM_UP_PART = 0.2
CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of a simulated load.

    Attributes:
        asked: images, after the warm-up.
        failed: of those.
        per_s: images a second that were done.
        p50_ms, p99_ms: from the call to its end, of those that were done; infinite if none was.
        busy: by stage, the part of their time that its workers computed, or its fronts where those are busier.
    """

    asked: int
    failed: int
    per_s: float
    p50_ms: float
    p99_ms: float
    busy: Mapping[str, float]

    def meets(self, p99_ms: float) -> bool:
        """Whether nothing failed and nearly all was in time."""
        return not self.failed and self.p99_ms <= p99_ms


def predict(
    plan: ClusterPlan,
    load: Load,
    *,
    lasts_s: float = 20.0,
    timeout_s: float = 30.0,
    seed: int = 1,
    orchestrator_ms: float = 0.0,
    callers: int | None = None,
    due: Sequence[tuple[float, int]] = (),
    warm_up_part: float = WARM_UP_PART,
    look: Callable[[Cluster], object] = lambda _: None,
) -> Prediction:
    """Simulate a cluster under a load.

    Args:
        plan: the cluster.
        load: what comes in.
        lasts_s: simulated seconds, the warm-up included.
        timeout_s: of each call.
        seed: of arrivals, times and all other chance.
        orchestrator_ms: what an orchestrator computes for an image, one image at a time; on one machine, with what its
            client computes there. With 0 it is left out, and the prediction is a bound from below where it is busy.
        due: moments at which images come, and the kind of each by its place in the load, in place of the load's rate.
        warm_up_part: of the time, in which nothing is counted.
        look: told of the cluster at the end of the load.
        callers: so many that wait for their answers (a closed loop) in place of the load's rate.
    """
    asked = _Asked(plan, load, lasts_s, timeout_s, seed, orchestrator_ms, callers, due, warm_up_part, look)
    return simulate(partial(_predict, asked), seed=seed)


class _Asked(NamedTuple):
    plan: ClusterPlan
    load: Load
    lasts_s: float
    timeout_s: float
    seed: int
    orchestrator_ms: float
    callers: int | None
    due: Sequence[tuple[float, int]]
    warm_up_part: float
    look: Callable[[Cluster], object]


async def _predict(asked: _Asked) -> Prediction:
    plan, lasts_s, callers = asked.plan, asked.lasts_s, asked.callers
    cluster = Cluster(plan, asked.seed)
    await cluster.start()
    await asyncio.sleep(max(stage.profile.start_s for _, stage in plan.stages.values()) + 5)
    run = _Run(cluster, asked.load, asked.timeout_s, asked.orchestrator_ms / 1000)
    busy_before = _busy_s(cluster)
    chance = random.Random(f"{asked.seed}/arrivals")
    async with asyncio.TaskGroup() as group:
        if callers is None:
            await run.open(lasts_s, asked.due or arrivals(asked.load, lasts_s, chance), group)
        else:
            await run.closed(lasts_s, chance, callers)
        busy_s = {name: seconds - busy_before[name] for name, seconds in _busy_s(cluster).items()}
        asked.look(cluster)
    await run.close()
    await cluster.stop()
    counted_s, end_s = run.begun_s + asked.warm_up_part * lasts_s, run.begun_s + lasts_s
    # Of callers that wait, what ended while it was measured; of others, what came.
    heard = [job for job in run.heard if counted_s <= (job.asked_s if callers is None else job.ended_s) < end_s]
    return _summed(
        heard,
        lasts_s * (1 - asked.warm_up_part),
        {name: seconds / lasts_s for name, seconds in busy_s.items()},
    )


class _Run:
    """A load while it runs."""

    def __init__(self, cluster: Cluster, load: Load, timeout_s: float, orchestrator_s: float) -> None:
        self._cluster = cluster
        self._load = load
        self._timeout_s = timeout_s
        self._orchestrator_s = orchestrator_s
        count = len(cluster.orchestrators)
        self._clients = [cluster.client(f"client {number}", number % count) for number in range(max(CLIENTS, count))]
        # An orchestrator is one thread: what it does for images, it does for one after the other.
        self._threads = [asyncio.Lock() for _ in range(count)]
        self._loop = current_loop()
        self.begun_s = self._loop.time()
        self.heard: list[Timed] = []

    async def open(self, lasts_s: float, due: Iterable[tuple[float, Picture | int]], group: asyncio.TaskGroup) -> None:
        """Images come whatever becomes of those before."""
        for number, (at_s, what) in enumerate(due, 1):
            await asyncio.sleep(self.begun_s + at_s - self._loop.time())
            picture = self._load.kinds[what].picture(number) if isinstance(what, int) else what
            group.create_task(self._one(picture))
        await asyncio.sleep(self.begun_s + lasts_s - self._loop.time())

    async def closed(self, lasts_s: float, chance: random.Random, callers: int) -> None:
        """So many callers ask again when they are answered."""
        numbers = itertools.count(1)

        async def caller() -> None:
            while self._loop.time() < self.begun_s + lasts_s:
                await self._one(self._load.picture(next(numbers), chance))

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.close()

    async def _one(self, picture: Picture) -> None:
        asked_s = self._loop.time()
        place = picture.number % len(self._clients)
        client: Client = self._clients[place]
        if self._orchestrator_s:
            async with self._threads[place % len(self._threads)]:
                await compute(self._cluster.machine, self._orchestrator_s)
        timed = await client.time(picture, self._timeout_s)
        self.heard.append(timed._replace(asked_s=asked_s))


def _summed(heard: Sequence[Timed], seconds: float, busy: Mapping[str, float]) -> Prediction:
    took_ms = sorted(job.took_s * 1000 for job in heard if job.succeeded)
    return Prediction(
        asked=len(heard),
        failed=len(heard) - len(took_ms),
        per_s=len(took_ms) / seconds,
        p50_ms=_quantile(took_ms, 0.5),
        p99_ms=_quantile(took_ms, 0.99),
        busy=busy,
    )


def _quantile(ascending: Sequence[float], part: float) -> float:
    return ascending[math.ceil(part * len(ascending)) - 1] if ascending else math.inf


def _busy_s(cluster: Cluster) -> dict[str, float]:
    """Of a worker of each stage on average, or of a front where that is more."""
    busy = {}
    for name, group in cluster.replicas.items():
        workers = cluster.plan.stages[name][1].workers
        benches = [process.service.bench for process in group]
        busy[name] = max(sum(b.busy_s for b in benches) / workers, sum(b.front_busy_s for b in benches)) / len(group)
    return busy
