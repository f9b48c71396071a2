"""Where the knee is, by what was measured at rates around it. Pure.

The knee is the highest rate of Poisson arrivals at which 99 of 100 requests are answered in full within the goal;
refused, failed and unfinished requests count as never answered.

Near saturation the time that requests wait grows as r / (C - r), with r the rate and C the capacity. Each latency that
was measured at one rate therefore says what it would have been at another one close by:

    scale = (latency - base) * (C - r) / r

and of all scales together, those measured near the knee counting most, the 99th percentile gives the rate at which
the 99th percentile of the latency is the goal. So every request of every trial helps, and a trial that missed the knee
by a few per cent is not lost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MISSED_SHARE", "OpenTrial", "estimate", "interval", "percentile_s"]

# One request in a hundred may miss the goal.
MISSED_SHARE = 0.01
# The percentile is read off the mean excess above this share of the largest scales: a tail that falls exponentially,
# as that of a queue does, is known better from all of it than from its one request in a hundred.
TAIL_SHARE = 0.05
# Latencies are cut at so many goals; how far beyond makes no difference, and what had no answer
# has to be somewhere.
CUT_GOALS = 4.0
# Trials at a rate so much away (as a ratio) count 1/e: the model holds close by.
NEARNESS = 0.15
# Each trial counts at least so little, so that there is an estimate also where all of them were far off.
LEAST_WEIGHT = 1e-3
# As a share of the capacity: rates above it have no steady state, and the model none either.
LEAST_ROOM = 0.01
# No interval is narrower: the model is not exact, and a trial begins with an empty queue.
MODEL_ERROR = 0.03
# Of Student's t, for 90 %, two-sided, by degrees of freedom from 1.
T_90 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895)


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """What open load at one rate showed, without its warm-up.

    Attributes:
        rate_per_s: that was asked for.
        latencies_s: of its requests, in the order in which they were due; infinite where there was no full answer.
    """

    rate_per_s: float
    latencies_s: Sequence[float]

    @property
    def p99_s(self) -> float:
        """The least latency that 99 of 100 did not exceed; infinite if more than that had none."""
        return percentile_s(self.latencies_s, 1 - MISSED_SHARE)


def percentile_s(values: Sequence[float], part: float) -> float:
    """The value of the nearest rank; infinite without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else math.inf


def _knee(
    trials: Sequence[OpenTrial], weights: Sequence[float], base_s: float, capacity_per_s: float, goal_s: float
) -> float:
    scales: list[tuple[float, float]] = []
    for trial, weight in zip(trials, weights, strict=True):
        room = max(capacity_per_s - trial.rate_per_s, LEAST_ROOM * capacity_per_s) / trial.rate_per_s
        scales += [((min(latency_s, CUT_GOALS * goal_s) - base_s) * room, weight) for latency_s in trial.latencies_s]
    scales.sort(reverse=True)
    total = sum(weight for _, weight in scales)
    above = moment = scale = 0.0
    for scale, weight in scales:
        above += weight
        moment += weight * scale
        if above >= TAIL_SHARE * total:
            break
    percentile = scale + (moment / above - scale) * math.log(TAIL_SHARE / MISSED_SHARE)
    # Where hardly anything waits, the whole capacity keeps the goal.
    wait_s = goal_s - base_s
    room = wait_s / max(percentile, 1e-3 * wait_s)
    return capacity_per_s * room / (1 + room)


def estimate(trials: Sequence[OpenTrial], base_s: float, capacity_per_s: float, goal_s: float) -> float:
    """Estimate the knee.

    Args:
        trials: at least one; each with requests.
        base_s: latency of a request that waits for nothing; less than the goal.
        capacity_per_s: requests a second that the server answers at most.
        goal_s: that 99 of 100 are to keep.

    Returns:
        Requests a second, at most the capacity.
    """
    facts = (base_s, capacity_per_s, goal_s)
    rate = _knee(trials, [1.0] * len(trials), *facts)
    # What is near depends on where the knee is.
    for _ in range(3):
        distances = [math.log(trial.rate_per_s / rate) / math.log1p(NEARNESS) for trial in trials]
        rate = _knee(trials, [LEAST_WEIGHT + math.exp(-(distance**2)) for distance in distances], *facts)
    return rate


def interval(
    trials: Sequence[OpenTrial], base_s: float, capacity_per_s: float, goal_s: float
) -> tuple[float, float] | None:
    """Say between which rates the knee lies with 90 % confidence, by how far the trials, each taken alone, differ.

    Requests of one trial resemble each other, as they share a queue, so their number says little; trials do not.

    Returns:
        The lowest and the highest rate; None with fewer than two trials.
    """
    if len(trials) < 2:
        return None
    facts = (base_s, capacity_per_s, goal_s)
    middle = estimate(trials, *facts)
    alone = [math.log(_knee([trial], [1.0], *facts)) for trial in trials]
    freedom = min(len(trials) - 1, len(T_90))
    margin = math.exp(math.hypot(T_90[freedom - 1] * statistics.stdev(alone) / math.sqrt(len(alone)), MODEL_ERROR))
    return middle / margin, middle * margin
