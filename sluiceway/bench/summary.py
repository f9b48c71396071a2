"""Figures of one stretch of load, made of its outcomes. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway.bench.intervals import Estimate, rate_per_s
from sluiceway.bench.latency import PERCENTILES, Latencies
from sluiceway.bench.outcome import Outcome

__all__ = ["Part", "Second", "Summary", "summarise"]

# Above this share of the median latency, the lateness of the generator is a part of what was measured.
LATE_SHARE = 0.1
LATE_S = 0.010


@dataclass(frozen=True, slots=True)
class Part:
    """Where time went: one part of it, over all requests that were answered.

    Attributes:
        name: "waiting here", "on the way", "fetch", "NAME: queue", "NAME: compute", "NAME: rest".
        of: whose time it is: "client", "server", or the name of a step.
        mean_ms: mean.
        p99_ms: 99th percentile.
    """

    name: str
    of: str
    mean_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Second:
    """One second of the load, by when requests were due; latencies are None where nothing was answered."""

    begin_s: float
    due: int
    answered: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a stretch of load showed, by the requests that were due in the measured window, or ended in it.

    Attributes:
        seconds: length of the window.
        offered_per_s: requests that were due, a second.
        answered_per_s: requests answered in full, a second, with its 95 % interval.
        goodput_per_s: those of them that kept the goal; all of them where there is none.
        goal_s: latency that was asked for, or None.
        outcomes: how many ended how.
        latencies: of requests answered in full, from when they were due.
        late: of the generator: from when a request was due until it was sent.
        parts: where time went.
        over_time: second by second, the warm-up included.
    """

    seconds: float
    offered_per_s: float
    answered_per_s: Estimate
    goodput_per_s: Estimate
    goal_s: float | None
    outcomes: Mapping[str, int]
    latencies: Latencies
    late: Latencies
    parts: Sequence[Part]
    over_time: Sequence[Second]

    @property
    def requests(self) -> int:
        """How many were due."""
        return sum(self.outcomes.values())

    @property
    def kept(self) -> bool | None:
        """Whether 99 of 100 requests, refused and failed ones included, kept the goal; None without a goal."""
        if self.goal_s is None:
            return None
        return self.goodput_per_s.value >= 0.99 * self.offered_per_s > 0

    @property
    def generator_late(self) -> bool:
        """Whether this client was so late in sending that the figures are partly its own."""
        late_s, median_s = self.late.percentile_s(99), self.latencies.percentile_s(50)
        return late_s is not None and late_s > max(LATE_S, LATE_SHARE * (median_s or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the output of `sluiceway bench --json`."""
        return {
            "seconds": self.seconds,
            "requests": self.requests,
            "offered_per_s": self.offered_per_s,
            "answered_per_s": self.answered_per_s.to_dict(),
            "goodput_per_s": self.goodput_per_s.to_dict(),
            "goal_ms": None if self.goal_s is None else self.goal_s * 1000,
            "goal_kept": self.kept,
            "outcomes": dict(self.outcomes),
            "latency_ms": _percentiles_ms(self.latencies),
            "latency_histogram_us": self.latencies.encoded(),
            "generator_late_ms": _percentiles_ms(self.late),
            "generator_limited": self.generator_late,
            "parts": [
                {"name": part.name, "of": part.of, "mean_ms": part.mean_ms, "p99_ms": part.p99_ms}
                for part in self.parts
            ],
            "over_time": [
                {
                    "begin_s": second.begin_s,
                    "due": second.due,
                    "answered": second.answered,
                    "failed": second.failed,
                    "p50_ms": second.p50_ms,
                    "p99_ms": second.p99_ms,
                }
                for second in self.over_time
            ],
        }


def _percentiles_ms(latencies: Latencies) -> dict[str, float | None]:
    found = {f"p{percentile:g}": latencies.percentile_s(percentile) for percentile in PERCENTILES}
    found["mean"] = latencies.mean_s()
    return {name: None if value_s is None else value_s * 1000 for name, value_s in found.items()}


def summarise(
    outcomes: Sequence[Outcome], begin_s: float, end_s: float, goal_s: float | None = None, *, by_end: bool = False
) -> Summary:
    """Make figures of outcomes.

    Args:
        outcomes: of all requests, in any order.
        begin_s: of the measured window; what was due before is the warm-up.
        end_s: of the window; what was due later counts nowhere but in `over_time`.
        goal_s: latency that is good enough; None takes any answer.
        by_end: count what ended inside the window, not what was due: for callers that wait. Where they wait for longer
            than the window nothing is due in it, and yet the server answers.
    """

    def when_s(outcome: Outcome) -> float:
        return outcome.ended_s if by_end else outcome.due_s

    counted = [outcome for outcome in outcomes if begin_s <= when_s(outcome) < end_s]
    answered = [outcome for outcome in counted if outcome.ok]
    good = answered if goal_s is None else [outcome for outcome in answered if outcome.within(goal_s)]
    return Summary(
        seconds=end_s - begin_s,
        offered_per_s=len(counted) / (end_s - begin_s),
        answered_per_s=rate_per_s([when_s(outcome) for outcome in answered], begin_s, end_s),
        goodput_per_s=rate_per_s([when_s(outcome) for outcome in good], begin_s, end_s),
        goal_s=goal_s,
        outcomes=dict(Counter(outcome.answer.kind for outcome in counted).most_common()),
        latencies=Latencies(outcome.latency_s for outcome in answered),
        late=Latencies(outcome.late_s for outcome in counted),
        parts=tuple(_parts(answered)),
        over_time=tuple(_by_second(outcomes)),
    )


def _parts(answered: Sequence[Outcome]) -> Iterable[Part]:
    if not answered:
        return
    timings = [outcome.answer.timings for outcome in answered]
    yield _part("waiting here", "client", [outcome.late_s * 1000 for outcome in answered])
    # Both directions, reading the request and what the client needs to read the answer.
    yield _part(
        "on the way",
        "client",
        [
            (outcome.ended_s - outcome.sent_s) * 1000 - timing.total_ms
            for outcome, timing in zip(answered, timings, strict=True)
        ],
    )
    yield _part("waiting and fetching", "orchestrator", [timing.fetch_ms for timing in timings])
    for name in dict.fromkeys(name for timing in timings for name in timing.steps):
        ran = [timing.steps[name] for timing in timings if name in timing.steps]
        yield _part(f"{name}: queue", name, [step.queue_ms for step in ran])
        yield _part(f"{name}: decode", name, [step.decode_ms for step in ran])
        yield _part(f"{name}: compute", name, [step.compute_ms for step in ran])
        yield _part(f"{name}: from first call to last answer", name, [step.total_ms for step in ran])
    yield _part("server in all", "orchestrator", [timing.total_ms for timing in timings])


def _part(name: str, of: str, values_ms: Sequence[float]) -> Part:
    # Clocks of two machines' processes differ in rate: what came out below nothing is nothing.
    values = sorted(max(0.0, value) for value in values_ms)
    return Part(name, of, statistics.fmean(values), values[min(len(values) - 1, int(0.99 * len(values)))])


def _by_second(outcomes: Sequence[Outcome]) -> Iterable[Second]:
    seconds: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        seconds.setdefault(int(outcome.due_s), []).append(outcome)
    for number in range(max(seconds, default=-1) + 1):
        due = seconds.get(number, [])
        latencies_ms = sorted(outcome.latency_s * 1000 for outcome in due if outcome.ok)
        yield Second(
            begin_s=float(number),
            due=len(due),
            answered=len(latencies_ms),
            failed=len(due) - len(latencies_ms),
            p50_ms=_rank(latencies_ms, 0.5),
            p99_ms=_rank(latencies_ms, 0.99),
        )


def _rank(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None
