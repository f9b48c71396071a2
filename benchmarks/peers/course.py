"""What every contestant goes through once it answers. One load generator for all: that of `sluiceway bench`."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any

from benchmarks.peers.hosting import REFUSED, Running
from sluiceway.bench.arrivals import Arrival, poisson
from sluiceway.bench.latency import Latencies
from sluiceway.bench.load import Load
from sluiceway.bench.outcome import Outcome
from sluiceway.bench.runs import Window, run_closed

__all__ = ["DEADLINE_S", "Pace", "StepFigures", "Stint", "run_stint", "step_figures", "windows_of"]

# Of every request under open load, from when it is due: nobody waits longer.
DEADLINE_S = 5.0
LOADS = (0.5, 0.8, 1.5)
STEP_FROM, STEP_TO = 0.5, 3.0
# Of the images a second that a window of the step should hold, so that one image more or less is nothing.
WINDOW_IMAGES = 100
LONGEST_STEP_S = 30.0
REACHED = 0.95
# Of a core: processes that take less are not told of.
LEAST_SHARE = 0.05


@dataclass(frozen=True)
class Pace:
    """How long each part lasts.

    Attributes:
        callers: of the closed loop, one after the other.
        closed_s: of each; a quarter of it before that is not counted.
        open_s: of each load.
        step_s: of three times the capacity.
        settle_s: of load before anything is measured, for servers that get to know what they are sent.
    """

    callers: tuple[int, ...]
    closed_s: float
    open_s: float
    step_s: float
    settle_s: float = 0.0


@dataclass(frozen=True)
class Closed:
    """Callers that wait for each answer.

    Attributes:
        full: shares of a core that processes took, those of a twentieth and more: who is at 1 is what is full.
    """

    callers: int
    answered_per_s: float
    failed: int
    p50_ms: float
    p99_ms: float
    full: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Open:
    """Arrivals at random, at `factor` times the capacity; latencies are of what was answered in time."""

    factor: float
    offered_per_s: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    outcomes: dict[str, int]


@dataclass(frozen=True)
class StepFigures:
    """From half of the capacity to three times it, at once.

    Attributes:
        goodput_per_s: answered in time, in each window from one median latency after the step on.
        window_s: length of each.
        refused_ms: median, p99 and slowest of refusals.
        accepted_ms: median and p99 of what was answered.
        outcomes: from the step on.
    """

    goodput_per_s: tuple[float, ...]
    window_s: float
    refused_ms: tuple[float, float, float]
    accepted_ms: tuple[float, float]
    outcomes: dict[str, int]


@dataclass(frozen=True)
class Stint:
    """All that was seen of a contestant between a start and its end.

    Attributes:
        closed: for each number of callers.
        open: for each load; empty where only the throughput was wanted.
        step: likewise None.
        after_per_s: the closed loop again, behind all of that.
        memory_mb: at the end.
        texts: read in each image before anything was measured.
    """

    closed: list[Closed]
    open: list[Open]
    step: StepFigures | None
    after_per_s: float
    memory_mb: float
    texts: list[list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _silent(_what: str, _seconds: float, _load: Load) -> None:
    """Nobody watches."""


async def _closed(running: Running, callers: int, images: int, seconds: float) -> Closed:
    window = Window(seconds / 4, seconds)
    before, begun_s = running.cpu_s_by_process(), time.monotonic()
    load = await run_closed(running.send, callers, images, window, timeout_s=60, watch=_silent)
    found = window.summary(load, None, by_end=True)
    p50_ms, p99_ms = _ms(found.latencies, 50), _ms(found.latencies, 99)
    took_s = time.monotonic() - begun_s
    shares = {name: (cpu_s - before.get(name, 0.0)) / took_s for name, cpu_s in running.cpu_s_by_process().items()}
    full = {name: round(share, 2) for name, share in sorted(shares.items(), key=itemgetter(1)) if share >= LEAST_SHARE}
    failed = found.requests - len(found.latencies)
    return Closed(callers, found.answered_per_s.value, failed, p50_ms, p99_ms, full)


async def _open(running: Running, factor: float, capacity_per_s: float, images: int, seconds: float) -> Open:
    window = Window(seconds / 4, seconds)
    load = Load(running.send, timeout_s=DEADLINE_S)
    rate_per_s = factor * capacity_per_s
    await load.open(poisson(rate_per_s, window.end_s, images, random.Random(round(factor * 10))))
    found = window.summary(load, DEADLINE_S)
    return Open(
        factor,
        rate_per_s,
        found.goodput_per_s.value,
        _ms(found.latencies, 50),
        _ms(found.latencies, 99),
        dict(found.outcomes),
    )


async def _step(running: Running, capacity_per_s: float, median_s: float, images: int, pace: Pace) -> StepFigures:
    before_s = pace.open_s / 2
    window_s, step_s = windows_of(capacity_per_s, median_s, pace.step_s)
    chance = random.Random(5)
    slow = poisson(STEP_FROM * capacity_per_s, before_s, images, chance)
    fast = poisson(STEP_TO * capacity_per_s, step_s, images, chance)
    arrivals = [*slow, *(Arrival(before_s + due_s, source) for due_s, source in fast)]
    load = Load(running.send, timeout_s=DEADLINE_S)
    await load.open(arrivals)
    return step_figures(load.outcomes, before_s, before_s + median_s, before_s + step_s, window_s)


def windows_of(capacity_per_s: float, median_s: float, step_s: float) -> tuple[float, float]:
    """How long a window is, and how long the step has to be so that two of them fit: a second, or a hundred images.

    Of contestants so slow that this would take more than `LONGEST_STEP_S`, windows are shorter.
    """
    window_s = max(1.0, WINDOW_IMAGES / capacity_per_s)
    longer_s = min(max(step_s, LONGEST_STEP_S), max(step_s, median_s + 2 * window_s))
    return min(window_s, (longer_s - median_s) / 2), longer_s


def step_figures(
    outcomes: Sequence[Outcome], step_s: float, begin_s: float, end_s: float, window_s: float
) -> StepFigures:
    """What a step showed. Pure.

    Args:
        outcomes: of all requests.
        step_s: when the load rose.
        begin_s: of the first window.
        end_s: of the load: no window reaches beyond.
        window_s: length of each; they stand beside each other, and what is left at the end is shorter than one.
    """
    good = [outcome.ended_s for outcome in outcomes if outcome.within(DEADLINE_S)]
    # A rounding error must not cost a window.
    count = max(1, int((end_s - begin_s) / window_s + 1e-6))
    edges = [begin_s + number * window_s for number in range(count)]
    goodput = tuple(sum(edge <= ended_s < edge + window_s for ended_s in good) / window_s for edge in edges)
    loaded = [outcome for outcome in outcomes if outcome.due_s >= step_s]
    refusals = Latencies(outcome.ended_s - outcome.sent_s for outcome in loaded if outcome.answer.kind == REFUSED)
    accepted = Latencies(outcome.latency_s for outcome in loaded if outcome.within(DEADLINE_S))
    return StepFigures(
        goodput,
        window_s,
        (_ms(refusals, 50), _ms(refusals, 99), _ms(refusals, 100)),
        (_ms(accepted, 50), _ms(accepted, 99)),
        dict(Counter(outcome.answer.kind for outcome in loaded).most_common()),
    )


async def run_stint(running: Running, images: int, pace: Pace, *, whole: bool) -> Stint:
    """Measure a contestant that answers.

    Args:
        running: the contestant.
        images: how many it can be asked for.
        pace: how long.
        whole: everything; else the closed loop alone, with the most callers.
    """
    if pace.settle_s:
        await _closed(running, pace.callers[-1], images, pace.settle_s)
    closed = [await _closed(running, callers, images, pace.closed_s) for callers in _callers(pace, whole=whole)]
    texts = [list(found) for found in running.texts]
    best = max(closed, key=lambda row: row.answered_per_s)
    if not whole or not best.answered_per_s:
        return Stint(closed, [], None, best.answered_per_s, running.memory_mb(), texts)
    capacity_per_s = best.answered_per_s
    least = next(row for row in closed if row.answered_per_s >= REACHED * capacity_per_s)
    loads = [await _open(running, factor, capacity_per_s, images, pace.open_s) for factor in LOADS]
    step = await _step(running, capacity_per_s, least.p50_ms / 1000, images, pace)
    # What a server still computes for callers who left is not capacity that it lost: a moment to end that.
    await _closed(running, best.callers, images, 1.0)
    after = await _closed(running, best.callers, images, pace.closed_s)
    return Stint(closed, loads, step, after.answered_per_s, running.memory_mb(), texts)


def _callers(pace: Pace, *, whole: bool) -> tuple[int, ...]:
    return pace.callers if whole else pace.callers[-1:]


def _ms(latencies: Latencies, percentile: float) -> float:
    return (latencies.percentile_s(percentile) or 0.0) * 1000
