"""Shares of version groups."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.stages.group import Shares

weights = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 50), min_size=1, max_size=5)


@given(weights=weights, count=st.integers(1, 200))
def test_no_group_is_ahead_of_its_share_by_more_than_one(weights: dict[str, int], count: int) -> None:
    """And so none is behind by more than one for each of the others: of two, each has its share to within one."""
    shares, total = Shares(), sum(weights.values())
    given_out: Counter[str] = Counter()
    for number in range(1, count + 1):
        given_out[shares.choose(weights)] += 1
        for name, weight in weights.items():
            ahead = given_out[name] - number * weight / total
            assert -max(1, len(weights) - 1) <= ahead <= 1


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 10, 40])
def test_of_any_sources_in_a_row_a_canary_gets_its_share_to_within_one(window: int) -> None:
    shares = Shares()
    chosen = [shares.choose({"old": 9, "new": 1}) for _ in range(400)]
    for start in range(len(chosen) - window):
        assert abs(chosen[start : start + window].count("new") - window / 10) <= 1


def test_a_group_that_comes_or_goes_is_not_made_up_for() -> None:
    shares = Shares()
    for _ in range(1001):
        assert shares.choose({"a": 1}) == "a"
    chosen = Counter(shares.choose({"a": 1, "b": 1}) for _ in range(100))
    assert chosen == {"a": 50, "b": 50}
    assert {shares.choose({"b": 3, "c": 3}) for _ in range(2)} == {"b", "c"}
