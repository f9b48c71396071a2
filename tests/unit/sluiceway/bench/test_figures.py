"""Histogram, intervals and summary."""

from __future__ import annotations

import json
import random

import pytest
from hdrh.histogram import HdrHistogram

from sluiceway.bench.intervals import rate_per_s
from sluiceway.bench.latency import Latencies
from sluiceway.bench.outcome import OK, TIMED_OUT, Answer, Outcome
from sluiceway.bench.summary import summarise
from sluiceway.client.results import StageTimings, Timings


def outcome(
    due_s: float, latency_s: float, kind: str = OK, *, late_s: float = 0.0, timings: Timings | None = None
) -> Outcome:
    return Outcome(due_s, due_s + late_s, due_s + latency_s, Answer(kind, timings or Timings()))


def test_percentiles_are_exact_to_three_digits() -> None:
    latencies = Latencies(number / 1000 for number in range(1, 10_001))
    for percentile, expected in ((50, 5.0), (90, 9.0), (99, 9.9), (99.9, 9.99), (100, 10.0)):
        assert latencies.percentile_s(percentile) == pytest.approx(expected, rel=1e-3)
    assert latencies.mean_s() == pytest.approx(5.0, rel=1e-2)
    assert len(latencies) == 10_000


def test_no_latency_is_no_number() -> None:
    empty = Latencies(())
    assert (len(empty), empty.percentile_s(50), empty.mean_s(), empty.curve()) == (0, None, None, [])


def test_the_ends_of_the_scale_are_held() -> None:
    latencies = Latencies((-1.0, 0.0, 1e9))
    assert latencies.percentile_s(50) == pytest.approx(1e-6)
    assert latencies.percentile_s(100) == pytest.approx(3600, rel=1e-3)


def test_the_encoded_histogram_is_one_that_others_read() -> None:
    latencies = Latencies((0.001, 0.5, 2.0))
    read = HdrHistogram.decode(latencies.encoded())
    assert read.get_total_count() == 3
    assert read.get_max_value() == pytest.approx(2_000_000, rel=1e-3)


def test_an_interval_holds_what_is_true() -> None:
    """Of many Poisson processes, about 95 of 100 intervals hold the rate."""
    chance, held = random.Random(5), 0
    for _ in range(400):
        times, now_s = [], 0.0
        while (now_s := now_s + chance.expovariate(30)) < 20:
            times.append(now_s)
        found = rate_per_s(times, 0, 20)
        held += found.low <= 30 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_rate_counts_what_is_inside() -> None:
    found = rate_per_s([0.5, 1.0, 2.0, 2.9999, 3.0], 1.0, 3.0)
    assert found.value == pytest.approx(1.5)
    assert 0.0 <= found.low <= found.value <= found.high


def test_figures_are_of_the_window_and_goodput_of_the_goal() -> None:
    outcomes = [
        outcome(0.5, 9.0),  # warm-up
        outcome(1.0, 0.1),
        outcome(1.5, 0.4),
        outcome(2.0, 0.2, "QUEUE_FULL"),
        outcome(2.5, 3.0, TIMED_OUT),
        outcome(5.0, 0.1),  # due behind the window
    ]
    found = summarise(outcomes, 1.0, 5.0, goal_s=0.3)
    assert found.requests == 4
    assert found.outcomes == {OK: 2, "QUEUE_FULL": 1, TIMED_OUT: 1}
    assert (found.offered_per_s, found.answered_per_s.value, found.goodput_per_s.value) == pytest.approx(
        (1.0, 0.5, 0.25)
    )
    assert found.latencies.percentile_s(100) == pytest.approx(0.4, rel=1e-3)
    assert found.kept is False
    assert [(second.due, second.answered, second.failed) for second in found.over_time] == [
        (1, 1, 0), (2, 2, 0), (2, 0, 2), (0, 0, 0), (0, 0, 0), (1, 1, 0)
    ]  # fmt: skip


def test_callers_that_wait_for_longer_than_the_window_are_counted_as_they_end() -> None:
    outcomes = [outcome(0.0, 1.5), outcome(0.0, 2.5), outcome(1.5, 2.5)]
    assert summarise(outcomes, 1.0, 3.0, by_end=True).answered_per_s.value == pytest.approx(1.0)
    assert summarise(outcomes, 1.0, 3.0).answered_per_s.value == pytest.approx(0.5)


@pytest.mark.parametrize(("slow", "kept"), [(1, True), (2, False)])
def test_one_in_a_hundred_may_miss_the_goal(slow: int, kept: bool) -> None:
    outcomes = [outcome(number / 100, 0.1 if number >= slow else 0.9) for number in range(100)]
    assert summarise(outcomes, 0.0, 1.0, goal_s=0.5).kept is kept


def test_refusals_miss_the_goal_however_quick_they_are() -> None:
    outcomes = [outcome(number / 100, 0.001, OK if number % 10 else "QUEUE_FULL") for number in range(100)]
    found = summarise(outcomes, 0.0, 1.0, goal_s=0.5)
    assert found.kept is False
    assert len(found.latencies) == 90


def test_a_late_generator_is_told() -> None:
    def late(late_s: float) -> bool:
        outcomes = [outcome(number / 10, 0.2 + late_s, late_s=late_s) for number in range(10)]
        return summarise(outcomes, 0.0, 1.0).generator_late

    assert late(0.15)
    assert not late(0.001)


def test_where_the_time_went() -> None:
    steps = {"text": StageTimings(queue_ms=5, compute_ms=30, total_ms=40, decode_ms=3)}
    timings = Timings(fetch_ms=2, steps=steps, total_ms=90)
    found = summarise([outcome(0.0, 0.110, late_s=0.010, timings=timings)], 0.0, 1.0)
    parts = {part.name: part.mean_ms for part in found.parts}
    assert parts == pytest.approx(
        {
            "waiting here": 10,
            "on the way": 10,
            "waiting and fetching": 2,
            "text: queue": 5,
            "text: decode": 3,
            "text: compute": 30,
            "text: from first call to last answer": 40,
            "server in all": 90,
        }
    )


@pytest.mark.parametrize("outcomes", [[], [outcome(0.0, 0.1, "QUEUE_FULL")], [outcome(0.0, 0.1)]])
def test_every_summary_is_valid_json(outcomes: list[Outcome]) -> None:
    plain = summarise(outcomes, 0.0, 1.0, goal_s=0.5).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
