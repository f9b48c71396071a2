"""Clusters for a load, and what they cost: servers of each stage, cores, GPUs and orchestrators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sluiceway_simulation.planning.predict import Prediction
from sluiceway_simulation.planning.search import Goal, NoPlan, Option, cheapest
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile

__all__ = ["Fleet", "Prices", "Wanted", "fleets", "image_s", "needed"]

# A large cluster is planned as several like cells of so many images a second at most, as each image simulated takes
# time. Cells cannot help each other out, so a cluster of all their servers does a little better.
CELL_PER_S = 50.0
# Up to so much of its time a worker, or an orchestrator, is taken to compute at first; then it is tried.
FIRST_BUSY = 0.8
ORCHESTRATOR_BUSY = 0.6
# Simulated seconds of each try.
LASTS_S = 10.0


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
    for workers in _shapes(profile):
        tell(", ".join(f"{kind} {its.workers} x {its.threads}" for kind, its in workers.items()))
        try:
            found += _of_shape(profile, wanted, prices, workers, count)
        except NoPlan as fault:
            faults.append(str(fault))
    if not found:
        raise NoPlan("; ".join(faults))
    return sorted(found, key=lambda fleet: (fleet.price, fleet.prediction.p99_ms))[:count]


def needed(profile: PipelineProfile, kind: str, workers: Workers, rate_per_s: float) -> int:
    """Servers of a stage at a rate, by what an image costs alone."""
    each_s = image_s(profile, kind, workers)
    return max(1, math.ceil(rate_per_s * each_s / workers.workers / FIRST_BUSY))


def image_s(profile: PipelineProfile, kind: str, workers: Workers) -> float:
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


def _of_shape(
    profile: PipelineProfile, wanted: Wanted, prices: Prices, workers: Mapping[str, Workers], count: int
) -> list[Fleet]:
    cells = math.ceil(wanted.rate_per_s / CELL_PER_S)
    rate_per_s = wanted.rate_per_s / cells
    orchestrators = max(1, math.ceil(rate_per_s * profile.orchestrator_ms / 1000 / ORCHESTRATOR_BUSY))
    price = {kind: _price(profile.stages[kind], its, prices) for kind, its in workers.items()}
    options = cheapest(
        cluster_of(
            profile,
            workers,
            cores=None,
            replicas={kind: needed(profile, kind, its, rate_per_s) for kind, its in workers.items()},
            orchestrators=orchestrators,
        ),
        load_of(profile, rate_per_s),
        Goal(wanted.p99_ms, price),
        lasts_s=LASTS_S,
        count=count,
        fronts_ms=profile.orchestrator_ms,
    )
    return [_fleet(profile, prices, workers, option, orchestrators=orchestrators, cells=cells) for option in options]


def _fleet(
    profile: PipelineProfile,
    prices: Prices,
    workers: Mapping[str, Workers],
    cell: Option,
    *,
    orchestrators: int,
    cells: int,
) -> Fleet:
    """All the cells of which one is given, with so many orchestrators each."""
    replicas = {kind: count * cells for kind, count in cell.replicas.items()}
    fronts = orchestrators * cells
    each = {kind: _price(profile.stages[kind], its, prices) for kind, its in workers.items()}
    most = max(replicas.values())
    return Fleet(
        workers,
        replicas,
        fronts,
        cells,
        cell.prediction,
        cores=fronts + sum(replicas[kind] * its.workers * its.threads for kind, its in workers.items()),
        gpus=sum(replicas[kind] for kind in workers if profile.stages[kind].device != "cpu"),
        price=fronts * prices.core + sum(replicas[kind] * each[kind] for kind in workers),
        alike_price=fronts * prices.core + sum(most * each[kind] for kind in workers),
    )


def _price(stage: StageProfile, its: Workers, prices: Prices) -> float:
    return its.workers * its.threads * prices.core + (prices.gpu if stage.device != "cpu" else 0.0)
