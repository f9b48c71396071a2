"""How the knee is looked for in a given time. Pure: a policy that says what to try next and is told what came of it.

First callers that wait for each answer, ever twice as many, until more of them get no more answers: that gives the
latency without waiting and the capacity. Then open load, each time at the rate where the knee seems to be by all that
was measured so far.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sluiceway.bench.knee import OpenTrial, estimate, interval, percentile_s

__all__ = ["LEAST_BUDGET_S", "Closed", "Knee", "KneeSearch", "Open", "largest_goal_s"]

LEAST_BUDGET_S = 20.0
# Of the budget: for finding the capacity, and for the arithmetic at the end.
RAMP_SHARE = 0.25
END_S = 3.0
MAX_CALLERS = 1024
# A closed trial lasts as long as so many requests one after the other, at least a second.
ANSWERS = 8
CLOSED_S = 1.5
# More callers have to bring so many times the answers, or it was one of two steps in vain.
GROWTH = 1.1
STEPS_IN_VAIN = 2
OPEN_TRIALS = 4
# An open trial without requests enough says nothing of one in a hundred.
LEAST_OPEN_S = 3.0
WARM_UP_SHARE = 0.2
# From one trial to the next the rate changes at most by this factor: the estimate is good only close by.
STRIDE = 1.5
# Above the highest rate that kept the goal there is at least so much capacity.
BEYOND = 1.03
# A request that takes longer than so many goals is given up: it has missed the goal, and the next trial waits for it.
GIVE_UP_GOALS = 4.0


def largest_goal_s(budget_s: float) -> float:
    """The largest goal that can be judged in this time: its requests must fit into each trial several times."""
    return budget_s / 20


@dataclass(frozen=True, slots=True)
class Closed:
    """Try: so many callers that wait, for so long."""

    in_flight: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Try: Poisson arrivals at this rate for so long, of which the warm-up does not count."""

    rate_per_s: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Knee:
    """What was found.

    Attributes:
        goal_s: that 99 of 100 requests are to keep.
        rate_per_s: the highest rate that keeps it; None if none does.
        low_per_s: 90 % interval; None likewise.
        high_per_s: likewise.
        base_s: median latency of a single caller; None if it got no answer.
        capacity_per_s: most answers a second.
        why: why there is none; empty if there is one.
        trials: the open ones.
    """

    goal_s: float
    rate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    base_s: float | None
    capacity_per_s: float
    why: str = ""
    trials: Sequence[OpenTrial] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: part of the output of `sluiceway bench --json`."""
        return {
            "goal_ms": self.goal_s * 1000,
            "rate_per_s": self.rate_per_s,
            "low_per_s": self.low_per_s,
            "high_per_s": self.high_per_s,
            "base_ms": None if self.base_s is None else self.base_s * 1000,
            "capacity_per_s": self.capacity_per_s,
            "why": self.why,
            "trials": [
                {
                    "rate_per_s": trial.rate_per_s,
                    "requests": len(trial.latencies_s),
                    # Infinity is no JSON.
                    "p99_ms": trial.p99_s * 1000 if trial.p99_s < float("inf") else None,
                }
                for trial in self.trials
            ],
        }


class KneeSearch:
    """Looks for the knee.

    Args:
        goal_s: at most `largest_goal_s(budget_s)`.
        budget_s: time for all of it, at least `LEAST_BUDGET_S`.

    Call `next_trial`, carry it out, call `add_closed` or `add_open`, and again, until it returns None; then `knee`.
    """

    def __init__(self, goal_s: float, budget_s: float) -> None:
        self.goal_s = goal_s
        self.give_up_s = GIVE_UP_GOALS * goal_s
        self._budget_s = budget_s
        self._callers = 1
        self._in_vain = 0
        self._base_s: float | None = None
        self._capacity_per_s = 0.0
        self._open: list[OpenTrial] = []
        self._ramped = False
        self._why = ""

    def __repr__(self) -> str:
        phase = f"{len(self._open)} open trials" if self._ramped else f"{self._callers} callers"
        return f"<KneeSearch {phase}, capacity {self._capacity_per_s:.1f}/s>"

    def next_trial(self, elapsed_s: float) -> Closed | Open | None:
        """Say what to try next, `elapsed_s` after the search began; None when it is over."""
        if self._why:
            return None
        if not self._ramped:
            seconds = max(CLOSED_S, ANSWERS * (self._base_s or 0.0))
            if self._base_s is None or elapsed_s + seconds <= RAMP_SHARE * self._budget_s:
                return Closed(self._callers, seconds)
            self._ramped = True
        left_s = self._budget_s - END_S - elapsed_s
        # Fewer and longer ones where time is short.
        trials_left = min(OPEN_TRIALS - len(self._open), int(left_s // (LEAST_OPEN_S + self.goal_s)))
        if trials_left < 1:
            return None
        # The last requests of each may take until they are given up.
        seconds = min(left_s / trials_left - self.goal_s, left_s - self.give_up_s)
        if seconds < LEAST_OPEN_S:
            return None
        return Open(self._next_rate(), seconds, WARM_UP_SHARE * seconds)

    def add_closed(self, latencies_s: Sequence[float], seconds: float) -> None:
        """Tell what a closed trial showed.

        Args:
            latencies_s: of all its requests; infinite where there was no full answer.
            seconds: from its start until its last request ended.
        """
        answered = [latency_s for latency_s in latencies_s if latency_s < float("inf")]
        if self._base_s is None:
            if not answered:
                self._why = "a single caller got no answer"
                return
            self._base_s = statistics.median(answered)
            if self._base_s >= self.goal_s:
                self._why = f"a single caller waits {self._base_s * 1000:.0f} ms for an answer"
        rate_per_s = len(answered) / seconds
        self._in_vain = 0 if rate_per_s > GROWTH * self._capacity_per_s else self._in_vain + 1
        self._capacity_per_s = max(self._capacity_per_s, rate_per_s)
        self._callers *= 2
        missed = percentile_s(latencies_s, 0.5) > self.goal_s
        self._ramped = missed or self._in_vain >= STEPS_IN_VAIN or self._callers > MAX_CALLERS

    def add_open(self, trial: Open, latencies_s: Sequence[float]) -> None:
        """Tell what an open trial showed: latencies of what was due behind its warm-up, in that order."""
        if latencies_s:
            self._open.append(OpenTrial(trial.rate_per_s, tuple(latencies_s)))

    def _capacity(self) -> float:
        # Whoever keeps the goal at a rate has more capacity than that; callers that wait could not show it.
        kept = [trial.rate_per_s for trial in self._open if trial.p99_s <= self.goal_s]
        return max([self._capacity_per_s, *(BEYOND * rate_per_s for rate_per_s in kept)])

    def _next_rate(self) -> float:
        assert self._base_s is not None
        if not self._open:
            # Of a queue with one server of that capacity: the 99th percentile of its wait is about 2.3 / (C - r).
            free_per_s = 2.3 / (self.goal_s - self._base_s)
            return min(max(self._capacity_per_s - free_per_s, self._capacity_per_s / 5), 0.98 * self._capacity_per_s)
        last = self._open[-1].rate_per_s
        found = estimate(self._open, self._base_s, self._capacity(), self.goal_s)
        return min(max(found, last / STRIDE), last * STRIDE)

    def knee(self) -> Knee:
        """Say what was found."""
        rate = low = high = None
        why = self._why
        if self._base_s is not None and self._open and not why:
            facts = (self._open, self._base_s, self._capacity(), self.goal_s)
            rate = estimate(*facts)
            low, high = interval(*facts) or (None, None)
        elif not why:
            why = "the time was too short"
        return Knee(self.goal_s, rate, low, high, self._base_s, self._capacity_per_s, why, tuple(self._open))
