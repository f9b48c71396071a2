"""What a cluster would do under a load."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sluiceway_simulation.clients import Ask, Client, Heard
from sluiceway_simulation.cluster import Cluster, ClusterPlan
from sluiceway_simulation.planning.load import Load, arrivals
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
        busy: by stage, the part of their time that workers computed.
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
    plan: ClusterPlan, load: Load, *, lasts_s: float = 20.0, timeout_s: float = 30.0, seed: int = 1
) -> Prediction:
    """Simulate a cluster under a load.

    The time that orchestrators, fronts and clients compute is not in it, so it is a bound from below where those are
    busy.

    Args:
        plan: the cluster.
        load: what comes in.
        lasts_s: simulated seconds, the warm-up included.
        timeout_s: of each call.
        seed: of arrivals, times and all other chance.
    """
    return simulate(partial(_predict, plan, load, lasts_s, timeout_s, seed), seed=seed)


async def _predict(plan: ClusterPlan, load: Load, lasts_s: float, timeout_s: float, seed: int) -> Prediction:
    cluster = Cluster(plan, seed)
    await cluster.start()
    await asyncio.sleep(max(stage.profile.start_s for _, stage in plan.stages.values()) + 5)
    clients = [cluster.client(f"client {number}", number % plan.orchestrators) for number in range(CLIENTS)]
    loop = current_loop()
    begun_s, heard = loop.time(), []
    busy_before = _busy_s(cluster)

    async def one(client: Client, ask: Ask) -> None:
        heard.append(await client.ask(ask))

    async with asyncio.TaskGroup() as group:
        for at_s, picture in arrivals(load, lasts_s, random.Random(f"{seed}/arrivals")):
            await asyncio.sleep(begun_s + at_s - loop.time())
            ask = Ask(f"image {picture.number}", (picture,), timeout_s=timeout_s)
            group.create_task(one(clients[picture.number % CLIENTS], ask))
        await asyncio.sleep(begun_s + lasts_s - loop.time())
        busy_s = {name: seconds - busy_before[name] for name, seconds in _busy_s(cluster).items()}
    for client in clients:
        await client.close()
    await cluster.stop()
    counted_s = begun_s + WARM_UP_PART * lasts_s
    workers = {name: plan.replicas[name] * stage.workers for name, (_, stage) in plan.stages.items()}
    return _summed(
        [job for job in heard if job.asked_s >= counted_s],
        lasts_s * (1 - WARM_UP_PART),
        {name: busy_s[name] / (workers[name] * lasts_s) for name in workers},
    )


def _summed(heard: Sequence[Heard], seconds: float, busy: Mapping[str, float]) -> Prediction:
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
    return {name: sum(p.service.bench.busy_s for p in group) for name, group in cluster.replicas.items()}
