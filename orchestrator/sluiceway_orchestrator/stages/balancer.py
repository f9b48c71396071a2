"""Which replica gets the next item. Pure: time comes in, a choice comes out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sluiceway_runtime.priority import Priority

__all__ = ["Balanced", "Fullness", "Occupancy", "Report", "choose"]

# A report says nothing about now once it is this old; a busy replica reports many times a second.
REPORT_LIFETIME_S = 1.0
# How many times its capacity a replica is given at most, by class. Its own queue then holds about a batch for each
# worker: enough to keep the workers busy, little enough that late-coming interactive work is next in line.
_WINDOW_FACTORS = {Priority.INTERACTIVE: 3.0, Priority.NORMAL: 2.0, Priority.BULK: 2.0}
# Room above that, so that a replica with a single worker is not idle for the time of a round trip.
_WINDOW_SLACK = {Priority.INTERACTIVE: 2, Priority.NORMAL: 1, Priority.BULK: 0}
# Of more replicas than these, so many are looked at by chance before all are: a look at each of a thousand takes an
# orchestrator 0.16 ms, a tenth of what it computes for an image, and one at two of them 2 us.
FEW = 16
TRIES = 8
# For so long after a look at all of many, whether they are full is taken to be as it was.
FULL_LIFETIME_S = 0.01


@dataclass(frozen=True, slots=True)
class Report:
    """How busy a replica said that it was (`sluiceway.common.v1.Load`)."""

    queued: int = 0
    running: int = 0
    capacity: int = 0
    queue_ms: float = 0.0


@dataclass(slots=True)
class Occupancy:
    """What this process knows of how busy one replica is.

    Attributes:
        workers: of the replica, as it described itself.
        in_flight: items that this process has with it.
        others: items of other callers, as of the last report.
        held_until_s: it refused work and gets none before.
    """

    initial_window: int
    fixed_window: int | None = None
    workers: int = 0
    in_flight: int = 0
    others: int = 0
    reported_s: float = -math.inf
    held_until_s: float = -math.inf
    used_s: float = -math.inf
    sent: int = 0
    report: Report = Report()

    def took(self, cost: int, now_s: float) -> None:
        """An item goes to this replica."""
        self.in_flight += cost
        self.used_s = now_s
        self.sent += 1

    def reported(self, report: Report, now_s: float) -> None:
        """The replica said how busy it is; called while the item that brought the report still counts."""
        self.report = report
        self.others = max(0, report.queued + report.running - self.in_flight)
        self.reported_s = now_s

    def window(self, priority: Priority) -> int:
        """Items of this process that the replica may hold before it gets another."""
        if self.fixed_window is not None:
            return self.fixed_window
        return math.ceil(self.capacity * _WINDOW_FACTORS[priority]) + _WINDOW_SLACK[priority]

    @property
    def capacity(self) -> int:
        """Items that it works on at once: as reported; before the first report, as far as it can be known."""
        return self.report.capacity or max(self.workers, self.initial_window)

    def has_room(self, priority: Priority, now_s: float) -> bool:
        """Whether it may get an item now. One item is always within the window, however much it costs."""
        return self.in_flight < self.window(priority) and now_s >= self.held_until_s

    def score(self, now_s: float) -> float:
        """Items for each place; lower is better."""
        others = self.others if now_s - self.reported_s < REPORT_LIFETIME_S else 0
        return (self.in_flight + others) / self.capacity


class Balanced(Protocol):
    """Something that can be chosen."""

    occupancy: Occupancy

    @property
    def ready(self) -> bool:
        """Whether it takes work at all."""
        ...


Choice = TypeVar("Choice", bound=Balanced)


def choose(
    replicas: Sequence[Choice],
    priority: Priority,
    now_s: float,
    *,
    avoid: Balanced | None = None,
    random_source: random.Random | None = None,
) -> Choice | None:
    """Pick the less busy of two random replicas that have room.

    Looking at two is nearly as even as looking at all, and unlike the latter it does not send every caller to the one
    replica whose old report looks best. Of two that are equally busy the one that was used longer ago is taken.

    Args:
        replicas: all that are known.
        priority: class of the item.
        now_s: monotonic time.
        avoid: not this one if any other can be had (it just failed).
        random_source: for tests.

    Returns:
        The replica, or None if none has room.
    """
    source = random_source or random
    if len(replicas) > FEW:
        found: list[Choice] = []
        for _ in range(TRIES):
            replica = replicas[int(source.random() * len(replicas))]
            if (
                replica is not avoid
                and replica not in found
                and replica.ready
                and replica.occupancy.has_room(priority, now_s)
            ):
                found.append(replica)
                if len(found) == 2:
                    return _less_busy(found, now_s)
    able = [replica for replica in replicas if replica.ready and replica.occupancy.has_room(priority, now_s)]
    if avoid is not None and len(able) > 1:
        able = [replica for replica in able if replica is not avoid]
    if len(able) > 2:
        able = source.sample(able, 2)
    return _less_busy(able, now_s) if able else None


def _less_busy(replicas: Sequence[Choice], now_s: float) -> Choice:
    return min(replicas, key=lambda replica: (replica.occupancy.score(now_s), replica.occupancy.used_s))


class Fullness:
    """Whether replicas have all that they can work on. It is asked twice a source, so of many it is not always looked.

    One is for one set of replicas, which may change.
    """

    def __init__(self) -> None:
        self._is_full = False
        self._looked_s = -math.inf

    def of(self, replicas: Sequence[Balanced], now_s: float) -> bool:
        """Whether they are full; of many, as of a moment ago. Those of nobody are."""
        if len(replicas) <= FEW or now_s - self._looked_s > FULL_LIFETIME_S:
            occupied = [replica.occupancy for replica in replicas]
            self._is_full = sum([one.in_flight for one in occupied]) >= sum([one.capacity for one in occupied])
            self._looked_s = now_s
        return self._is_full
