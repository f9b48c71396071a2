"""The cheapest clusters that meet a goal, by trying: the busiest stage grows until all is in time, then all shrink."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sluiceway_simulation.cluster import ClusterPlan
from sluiceway_simulation.load import Load
from sluiceway_simulation.planning.predict import Prediction, predict

__all__ = ["Goal", "NoPlan", "Option", "cheapest"]

# Simulations that are tried before the goal is taken to be out of reach.
MOST_TRIES = 40
# Where the busiest stage computes for less of its time than this, nobody waits for a worker, and more of them gain
# nothing.
IDLE = 0.2
# And for more than this, queues grow for longer than a simulation lasts: that it was in time then says nothing.
MOST_BUSY = 0.9


class NoPlan(Exception):
    """No cluster was found that meets the goal; the message says what the last one did."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted.

    Attributes:
        p99_ms: of calls at the load.
        price: of one replica of each stage, in whatever it is paid in for an hour.
        most: replicas of each stage.
    """

    p99_ms: float
    price: Mapping[str, float]
    most: int = 1000


@dataclass(frozen=True, slots=True)
class Option:
    """A cluster that meets the goal."""

    replicas: Mapping[str, int]
    price: float
    prediction: Prediction


def cheapest(
    plan: ClusterPlan, load: Load, goal: Goal, *, lasts_s: float = 20.0, count: int = 3, orchestrator_ms: float = 0.0
) -> list[Option]:
    """The cheapest clusters that meet a goal, the cheapest first.

    Args:
        plan: what replicas are made of; its own numbers of replicas are where the search begins.
        load: what comes in.
        goal: what is wanted.
        lasts_s: of each simulation.
        count: most options.
        orchestrator_ms: what an orchestrator computes for an image.

    Raises:
        NoPlan: there is none within the bounds.
    """
    return _Search(plan, load, goal, lasts_s, orchestrator_ms).run()[:count]


class _Search:
    def __init__(self, plan: ClusterPlan, load: Load, goal: Goal, lasts_s: float, orchestrator_ms: float) -> None:
        self._plan = plan
        self._load = load
        self._goal = goal
        self._lasts_s = lasts_s
        self._orchestrator_ms = orchestrator_ms
        self._known: dict[tuple[int, ...], Prediction] = {}

    def run(self) -> list[Option]:
        replicas = dict(self._plan.replicas)
        while not self._keeps(found := self._try(replicas)):
            busiest = max(found.busy, key=lambda name: found.busy[name])
            if found.busy[busiest] < IDLE and not found.failed:
                raise NoPlan(f"p99 is still {found.p99_ms:.0f} ms, and all are idle for most of the time")
            # In steps of a tenth, so that large clusters are found as fast as small ones.
            replicas[busiest] += max(1, replicas[busiest] // 10)
            if replicas[busiest] > self._goal.most or len(self._known) >= MOST_TRIES:
                raise NoPlan(f"{dict(self._plan.replicas)} up to {replicas}: p99 is still {found.p99_ms:.0f} ms")
        self._shrink(replicas)
        options = [
            Option(tried, self._price(tried), prediction)
            for key, prediction in self._known.items()
            if self._keeps(prediction) and (tried := dict(zip(replicas, key, strict=True)))
        ]
        return sorted(options, key=lambda option: option.price)

    def _shrink(self, replicas: dict[str, int]) -> None:
        """As few replicas of each stage as meet the goal, the dearest stage first, found by halving."""
        for name in sorted(replicas, key=lambda name: -self._goal.price[name]):
            # So many would be too busy.
            few = max(1, math.ceil(replicas[name] * self._try(replicas).busy[name] / MOST_BUSY)) - 1
            while replicas[name] - few > 1 and len(self._known) < 2 * MOST_TRIES:
                fewer = {**replicas, name: (few + replicas[name]) // 2}
                if self._keeps(self._try(fewer)):
                    replicas.update(fewer)
                else:
                    few = fewer[name]

    def _keeps(self, prediction: Prediction) -> bool:
        return prediction.meets(self._goal.p99_ms) and max(prediction.busy.values()) <= MOST_BUSY

    def _try(self, replicas: Mapping[str, int]) -> Prediction:
        key = tuple(replicas.values())
        if key not in self._known:
            plan = replace(self._plan, replicas=dict(replicas))
            self._known[key] = predict(
                plan,
                self._load,
                lasts_s=self._lasts_s,
                timeout_s=self._patience_s,
                orchestrator_ms=self._orchestrator_ms,
            )
        return self._known[key]

    @property
    def _patience_s(self) -> float:
        """A call that takes far longer than the goal tells no more than one that fails."""
        return max(1.0, self._goal.p99_ms / 1000 * 10)

    def _price(self, replicas: Mapping[str, int]) -> float:
        return sum(self._goal.price[name] * count for name, count in replicas.items())
