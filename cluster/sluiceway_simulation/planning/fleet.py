"""Clusters for a load, and what they cost: servers of each stage, cores, GPUs and orchestrators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sluiceway_simulation.planning.predict import Prediction, predict
from sluiceway_simulation.planning.search import Goal, NoPlan, Option, cheapest
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile

__all__ = ["Cell", "Fleet", "Prices", "Wanted", "fleets", "needed", "server_per_s"]

# A large cluster is planned as several like cells, as each image simulated takes time: of so many images a second at
# least, and of so many servers of each stage. With fewer than those, most of a cell's only server would stand idle.
# Cells cannot help each other out, so a cluster of all their servers does a little better.
CELL_PER_S = 50.0
CELL_SERVERS = 2
# Up to so much of its time a worker, or an orchestrator, is taken to compute at first; then it is tried.
FIRST_BUSY = 0.8
ORCHESTRATOR_BUSY = 0.6
# Simulated seconds of each try: enough for so many images, within these.
IMAGES = 3000
LASTS_S = (3.0, 10.0)


@dataclass(frozen=True, slots=True)
class Prices:
    """Of an hour, in any one currency."""

    core: float = 0.04
    gpu: float = 2.50


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the cluster is to carry."""

    rate_per_s: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cluster that carries what is wanted.

    Attributes:
        workers: of one server of each stage.
        replicas: servers of each stage.
        orchestrators: servers of the orchestrator, a core each.
        cells: like parts that it was planned in.
        prediction: of one of them.
        price: of an hour.
        alike_price: of the cluster in which every stage has as many servers as the one that needs the most.
        machines_price: of as many machines like the one that was measured, each with all stages, as keep the goal;
            None where no number of them does.
    """

    workers: Mapping[str, Workers]
    replicas: Mapping[str, int]
    orchestrators: int
    cells: int
    prediction: Prediction
    cores: int
    gpus: int
    price: float
    alike_price: float
    machines_price: float | None


def fleets(
    profile: PipelineProfile,
    wanted: Wanted,
    prices: Prices,
    *,
    count: int = 3,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Fleet]:
    """The cheapest clusters, the cheapest first.

    Args:
        profile: of one machine's workers.
        wanted: the goal.
        prices: what servers cost.
        count: how many.
        tell: what is being tried, in words.

    Raises:
        NoPlan: no number of these workers is fast enough; the message says why.
    """
    found: list[Fleet] = []
    faults: list[str] = []
    tell(f"as many machines as the one that was measured ({profile.machine}) as are needed")
    machines = _machines(profile, wanted)
    machines_price = None if machines is None else machines * _machine_price(profile, prices)
    for workers in _shapes(profile):
        tell(", ".join(f"{kind} {its.workers} x {its.threads}" for kind, its in workers.items()))
        try:
            cell = Cell(profile, wanted, workers)
            found += [_fleet(cell, option, prices, machines_price) for option in cell.options(prices, count)]
        except NoPlan as fault:
            faults.append(str(fault))
    if not found:
        raise NoPlan("; ".join(faults))
    return sorted(found, key=lambda fleet: (fleet.price, fleet.prediction.p99_ms))[:count]


def needed(profile: PipelineProfile, kind: str, workers: Workers, rate_per_s: float) -> int:
    """Servers of a stage at a rate, by what an image costs alone."""
    return max(1, math.ceil(rate_per_s / server_per_s(profile, kind, workers) / FIRST_BUSY))


def server_per_s(profile: PipelineProfile, kind: str, workers: Workers) -> float:
    """Images a second with which a server computes all the time: its workers, or its front where that is full first."""
    front_ms = profile.stages[kind].front_ms
    return min(workers.workers / _image_s(profile, kind, workers), 1000 / front_ms if front_ms else math.inf)


def _image_s(profile: PipelineProfile, kind: str, workers: Workers) -> float:
    """Seconds of one worker that an image takes."""
    stage = profile.stages[kind]
    points = stage.batch_ms[min(stage.batch_ms, key=lambda threads: abs(threads - workers.threads))]
    # In the largest batches that were seen, as those of a busy stage are.
    items, batch_ms = max(points)
    per_image = 1.0 if kind == "detection" else sum(profile.regions) / len(profile.regions)
    return per_image * batch_ms / items / 1000


def _shapes(profile: PipelineProfile) -> Iterator[Mapping[str, Workers]]:
    """Servers that are worth a try: of two workers, and of one with more threads where that was measured."""
    detection, recognition = profile.stages["detection"], profile.stages["recognition"]
    for first in _servers(detection):
        for second in _servers(recognition):
            yield {"detection": first, "recognition": second}


def _servers(stage: StageProfile) -> list[Workers]:
    if stage.device != "cpu":
        return [Workers(1, 1)]
    threaded = [Workers(1, threads) for threads in sorted(stage.batch_ms) if threads > 1][:1]
    return [Workers(2, 1), *(threaded if stage.kind == "detection" else [])]


class Cell:
    """One of the like parts in which a cluster of such servers is planned.

    Attributes:
        count: of the parts.
        rate_per_s: of each.
    """

    def __init__(self, profile: PipelineProfile, wanted: Wanted, workers: Mapping[str, Workers]) -> None:
        self.profile = profile
        self.workers = workers
        largest_per_s = max(server_per_s(profile, kind, its) for kind, its in workers.items())
        self.count = max(1, int(wanted.rate_per_s / max(CELL_PER_S, CELL_SERVERS * largest_per_s * FIRST_BUSY)))
        self.rate_per_s = wanted.rate_per_s / self.count
        self._p99_ms = wanted.p99_ms
        each_s = profile.orchestrator_ms / 1000
        self.orchestrators = max(1, math.ceil(self.rate_per_s * each_s / ORCHESTRATOR_BUSY))

    def options(self, prices: Prices, count: int) -> list[Option]:
        """The cheapest. Raises NoPlan."""
        profile = self.profile
        replicas = {kind: needed(profile, kind, its, self.rate_per_s) for kind, its in self.workers.items()}
        price = {kind: _price(profile.stages[kind], its, prices) for kind, its in self.workers.items()}
        return cheapest(
            cluster_of(profile, self.workers, cores=None, replicas=replicas, orchestrators=self.orchestrators),
            load_of(profile, self.rate_per_s),
            Goal(self._p99_ms, price),
            lasts_s=_lasts_s(self.rate_per_s),
            count=count,
            orchestrator_ms=profile.orchestrator_ms,
        )


def _fleet(cell: Cell, option: Option, prices: Prices, machines_price: float | None) -> Fleet:
    """All the cells of which one is given."""
    profile, workers = cell.profile, cell.workers
    replicas = {kind: count * cell.count for kind, count in option.replicas.items()}
    orchestrators = cell.orchestrators * cell.count
    # Fronts compute beside the workers: pods may ask for a part of a core.
    front_cores = cell.rate_per_s * cell.count * sum(stage.front_ms for stage in profile.stages.values()) / 1000
    worker_cores = sum(replicas[kind] * its.workers * its.threads for kind, its in workers.items())
    each = {kind: _price(profile.stages[kind], its, prices) for kind, its in workers.items()}
    others = (orchestrators + front_cores) * prices.core
    most = max(replicas.values())
    return Fleet(
        workers,
        replicas,
        orchestrators,
        cell.count,
        option.prediction,
        cores=math.ceil(orchestrators + front_cores + worker_cores),
        gpus=sum(replicas[kind] for kind in workers if profile.stages[kind].device != "cpu"),
        price=others + sum(replicas[kind] * each[kind] for kind in workers),
        alike_price=others + sum(most * each[kind] for kind in workers),
        machines_price=machines_price,
    )


def _machines(profile: PipelineProfile, wanted: Wanted) -> int | None:
    """How many machines with all stages on them keep the goal, each with a part of the load; None if none do."""
    workers = {
        # Of a machine's cores no stage has any to itself, so each is given all of them.
        kind: Workers(profile.cores, 1) if stage.device == "cpu" else Workers(1, 1)
        for kind, stage in profile.stages.items()
    }
    plan = cluster_of(profile, workers, cores=profile.cores)
    core_s = sum(
        _image_s(profile, kind, its) if profile.stages[kind].device == "cpu" else 0.0 for kind, its in workers.items()
    )
    core_s += (profile.orchestrator_ms + sum(stage.front_ms for stage in profile.stages.values())) / 1000
    fewest = math.ceil(wanted.rate_per_s * core_s / profile.cores)
    # From a machine that computes all the time to one that does so for a third of it.
    machines = max(1, fewest)
    while machines <= max(2, 3 * fewest):
        rate_per_s = wanted.rate_per_s / machines
        found = predict(
            plan,
            load_of(profile, rate_per_s),
            lasts_s=_lasts_s(rate_per_s),
            timeout_s=max(1.0, wanted.p99_ms / 100),
            orchestrator_ms=profile.orchestrator_ms,
        )
        if found.meets(wanted.p99_ms):
            return machines
        machines += max(1, machines // 20)
    return None


def _lasts_s(rate_per_s: float) -> float:
    least_s, most_s = LASTS_S
    return min(most_s, max(least_s, IMAGES / rate_per_s))


def _machine_price(profile: PipelineProfile, prices: Prices) -> float:
    gpus = sum(stage.device != "cpu" for stage in profile.stages.values())
    return profile.cores * prices.core + gpus * prices.gpu


def _price(stage: StageProfile, its: Workers, prices: Prices) -> float:
    return its.workers * its.threads * prices.core + (prices.gpu if stage.device != "cpu" else 0.0)
