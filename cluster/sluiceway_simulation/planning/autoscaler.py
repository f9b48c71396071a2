"""Kubernetes' autoscaler over a simulated cluster: its settings tried against a step of the load, and over a day.

The algorithm is that of the HorizontalPodAutoscaler: desired = ceil(replicas * busy / target) every 15 s, nothing
within a tenth of the target, and downward the highest of what was desired within the stabilisation window.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sluiceway_simulation.clients import Client
from sluiceway_simulation.cluster import Cluster
from sluiceway_simulation.planning.fleet import Wanted, needed, server_per_s
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile
from sluiceway_simulation.stages.pictures import Picture
from sluiceway_simulation.virtual_time import current_loop, simulate

__all__ = ["DAY", "Scaling", "Tried", "over_a_day", "try_scalings"]

LOOK_EVERY_S = 15.0
TOLERANCE = 0.1
TARGETS = (0.5, 0.65, 0.8)
STABILISATIONS_S = (60.0, 300.0)
# Of a call.
TIMEOUT_S = 10.0
# A pod is placed and its image is there before its server starts.
POD_S = 5.0
# The step: so long at a third of the load, then so long at all of it.
CALM_S, FULL_S = 15.0, 90.0
CALM_PART = 1 / 3
# It is tried on as much of the cluster as has so many servers of the stage that needs the most.
STEP_SERVERS = 3
# Of the load's peak by the hour, where no trace says it: an office with an evening.
DAY = (
    *(0.20, 0.15, 0.12, 0.10, 0.10, 0.15, 0.30, 0.55, 0.80, 0.95, 1.00, 0.95),
    *(0.85, 0.90, 0.95, 0.90, 0.80, 0.70, 0.60, 0.65, 0.60, 0.50, 0.35, 0.25),
)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Settings of the autoscaler.

    Attributes:
        target: part of the requested CPU (`cpuPercent` of the chart).
        stabilisation_s: for which less is not believed.
    """

    target: float
    stabilisation_s: float


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of settings.

    Attributes:
        late: in the step, the part of images that failed or took longer than the goal.
        settled_s: after the step, until the last image that was late.
        core_hours: of a day, of the stages.
        short_hours: of a day, in which some stage had fewer servers than the load needed.
    """

    scaling: Scaling
    late: float
    settled_s: float
    core_hours: float
    short_hours: float


class Autoscaler:
    """Of one stage; pure."""

    def __init__(self, scaling: Scaling, least: int, most: int) -> None:
        self._scaling = scaling
        self._least = least
        self._most = most
        self._desired: deque[tuple[float, int]] = deque()

    def decide(self, now_s: float, replicas: int, busy: float) -> int:
        """How many there shall be, by the part of their time that those which are there compute."""
        ratio = busy / self._scaling.target
        wanted = replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(replicas * ratio)
        self._desired.append((now_s, min(self._most, max(self._least, wanted))))
        while self._desired[0][0] < now_s - self._scaling.stabilisation_s:
            self._desired.popleft()
        newest = self._desired[-1][1]
        return newest if newest >= replicas else min(replicas, max(count for _, count in self._desired))


def try_scalings(
    profile: PipelineProfile, workers: Mapping[str, Workers], wanted: Wanted, day: Sequence[float] = DAY
) -> list[Tried]:
    """Try all settings; first comes the one to take: the fewest core hours of those with little late.

    Args:
        profile: of the workers.
        workers: of one server of each stage.
        wanted: the goal. The step goes up to it; a large one is tried on a part of the cluster.
        day: the load of each part of a day, as a part of its peak.
    """
    found = []
    for target in TARGETS:
        # What is stabilised is the way down, so the step is the same for all windows.
        late, settled_s = _step(profile, workers, wanted, Scaling(target, STABILISATIONS_S[-1]))
        for stabilisation_s in STABILISATIONS_S:
            scaling = Scaling(target, stabilisation_s)
            core_hours, short_hours = over_a_day(profile, workers, wanted.rate_per_s, scaling, day)
            found.append(Tried(scaling, late, settled_s, core_hours, short_hours))
    least = min(tried.late for tried in found)
    return sorted(found, key=lambda tried: (tried.late > least + 0.02, tried.core_hours, tried.short_hours))


def over_a_day(
    profile: PipelineProfile,
    workers: Mapping[str, Workers],
    peak_per_s: float,
    scaling: Scaling,
    day: Sequence[float] = DAY,
) -> tuple[float, float]:
    """Core hours of the stages, and hours in which one of them was short, by what an image costs alone."""
    seconds_each = 24 * 3600 / len(day)
    core_hours = 0.0
    short: set[int] = set()
    for kind, its in workers.items():
        cost_s = 1 / server_per_s(profile, kind, its)
        most = 4 * needed(profile, kind, its, peak_per_s)
        scaler = Autoscaler(scaling, 1, most)
        replicas, coming = needed(profile, kind, its, peak_per_s * day[0]), deque[tuple[float, int]]()
        for tick in range(int(24 * 3600 / LOOK_EVERY_S)):
            now_s = tick * LOOK_EVERY_S
            place = now_s / seconds_each
            before, after = day[int(place) % len(day)], day[(int(place) + 1) % len(day)]
            load = peak_per_s * (before + (after - before) * (place % 1)) * cost_s
            while coming and coming[0][0] <= now_s:
                replicas += coming.popleft()[1]
            if load > replicas:
                short.add(tick)
            there = replicas + sum(count for _, count in coming)
            wanted = scaler.decide(now_s, there, min(1.0, load / replicas) * replicas / there)
            if wanted > there:
                coming.append((now_s + POD_S + profile.stages[kind].start_s, wanted - there))
            elif wanted < replicas:
                replicas = wanted
            core_hours += there * its.workers * its.threads * LOOK_EVERY_S / 3600
    return core_hours, len(short) * LOOK_EVERY_S / 3600


def _step(
    profile: PipelineProfile, workers: Mapping[str, Workers], wanted: Wanted, scaling: Scaling
) -> tuple[float, float]:
    most = max(needed(profile, kind, its, wanted.rate_per_s) for kind, its in workers.items())
    part = replace(wanted, rate_per_s=wanted.rate_per_s * min(1.0, STEP_SERVERS / most))
    return simulate(partial(_Step(profile, workers, part, scaling).run), seed=1)


class _Step:
    """A step of the load on a part of the cluster, whose servers are started and ended as the autoscaler says."""

    def __init__(
        self, profile: PipelineProfile, workers: Mapping[str, Workers], wanted: Wanted, scaling: Scaling
    ) -> None:
        self._profile = profile
        self._workers = workers
        self._wanted = wanted
        self._scaling = scaling
        self._late_s: list[float] = []
        self._asked = 0

    async def run(self) -> tuple[float, float]:
        calm_per_s = self._wanted.rate_per_s * CALM_PART
        replicas = {kind: needed(self._profile, kind, its, calm_per_s) for kind, its in self._workers.items()}
        plan = cluster_of(self._profile, self._workers, cores=None, replicas=replicas)
        cluster = Cluster(plan, 1)
        await cluster.start()
        await asyncio.sleep(POD_S)
        client, loop = cluster.client("client"), current_loop()
        begun_s = loop.time()
        scaling = [asyncio.create_task(self._scale(cluster, kind, begun_s)) for kind in self._workers]
        load, chance = load_of(self._profile), random.Random(1)
        async with asyncio.TaskGroup() as group:
            for number in itertools.count(1):
                now_s = loop.time() - begun_s
                if now_s >= CALM_S + FULL_S:
                    break
                group.create_task(self._one(client, load.picture(number, chance), begun_s))
                await asyncio.sleep(chance.expovariate(calm_per_s if now_s < CALM_S else self._wanted.rate_per_s))
        for task in scaling:
            task.cancel()
        await client.close()
        await cluster.stop()
        return len(self._late_s) / max(1, self._asked), max(self._late_s, default=CALM_S) - CALM_S

    async def _one(self, client: Client, picture: Picture, begun_s: float) -> None:
        timed = await client.time(picture, TIMEOUT_S)
        asked_s = timed.asked_s - begun_s
        if asked_s < CALM_S:
            return
        self._asked += 1
        if not timed.succeeded or timed.took_s * 1000 > self._wanted.p99_ms:
            self._late_s.append(asked_s)

    async def _scale(self, cluster: Cluster, kind: str, begun_s: float) -> None:
        workers, loop = self._workers[kind], current_loop()
        scaler = Autoscaler(self._scaling, 1, 4 * needed(self._profile, kind, workers, self._wanted.rate_per_s))
        group = cluster.replicas[kind]
        before_s, coming = self._busy_s(cluster, kind), 0

        def come() -> None:
            nonlocal coming
            coming -= 1
            cluster.add(kind)

        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._busy_s(cluster, kind)
            busy = (now_s - before_s) / (LOOK_EVERY_S * len(group) * workers.workers)
            before_s = now_s
            there = len(group) + coming
            for _ in range(scaler.decide(loop.time() - begun_s, there, busy * len(group) / there) - there):
                coming += 1
                loop.call_later(POD_S + self._profile.stages[kind].start_s, come)

    @staticmethod
    def _busy_s(cluster: Cluster, kind: str) -> float:
        return sum((process.service.bench.busy_s for process in cluster.replicas[kind]), 0.0)
