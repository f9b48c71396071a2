"""Counts of durations, and the quantiles that are read from them."""

from __future__ import annotations

import random

import pytest
from sluiceway_runtime.watch.durations import BUCKETS, Durations, quantile_s, since


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_right_to_a_twelfth(share: float) -> None:
    source = random.Random(7)
    values = sorted(source.lognormvariate(-3, 1) for _ in range(5000))
    durations = Durations()
    for value in values:
        durations.observe(value)
    found = quantile_s(durations.counts(), share)
    assert found == pytest.approx(values[int(share * len(values))], rel=0.1)


def test_the_contract_says_where_a_bucket_begins() -> None:
    """100 us x 2^((n - 1) / 8), as the comment of `DurationCounts` has it."""
    for bucket in (1, 2, 9, 100):
        begins_s = 1e-4 * 2 ** ((bucket - 1) / 8)
        durations = Durations()
        durations.observe(begins_s * 1.001)
        durations.observe(begins_s * 0.999)
        counts = durations.counts()
        assert counts[bucket] == counts[bucket - 1] == 1


def test_nothing_is_too_short_or_too_long() -> None:
    durations = Durations()
    for value in (0.0, -1e-9, 1e9):
        durations.observe(value)
    counts = durations.counts()
    assert len(counts) == BUCKETS
    assert (counts[0], counts[-1], sum(counts)) == (2, 1, 3)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_s((), 0.5) is None
    assert quantile_s(Durations().counts(), 0.99) is None


def test_only_what_came_between_two_readings_counts() -> None:
    """Whatever their lengths, as zeros at the end do not travel; and a count that fell is one that began anew."""
    assert since((1, 2), (1, 5, 7)) == (0, 3, 7)
    assert since((), (1,)) == (1,)
    assert since((5, 5, 5), (6,)) == (1,)
    assert since((9,), (2, 1)) == (0, 1)
