"""The verdicts of `make bench-peers`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "peers"))

from comparison import OURS, Comparison, Row, equal_share

READ = [["EMT", "cero emisiones"], []]


def row(name: str, per_s: float, failed: int = 0) -> Row:
    return Row(name, 4, per_s, failed, 100.0, 200.0, 900.0)


def comparison(
    peer_per_s: float = 18.0, *, failed: int = 0, read: list[list[str]] = READ, busy: float = 0.0
) -> Comparison:
    rows = [row(OURS, 12.0), row("peer", 5.0), row(OURS, 20.0), row("peer", peer_per_s, failed)]
    return Comparison(rows, {OURS: READ, "peer": read}, busy)


def test_the_best_of_each_counts() -> None:
    found = comparison()
    assert found.best_per_s == {OURS: 20.0, "peer": 18.0}
    assert found.ratios == {"sluiceway_to_peer": pytest.approx(20 / 18)}
    assert (found.faults(), found.judged) == ([], True)
    assert json.loads(json.dumps(found.to_dict()))["ratios"] == found.ratios


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (comparison(21.0), "sluiceway_to_peer = 0.95 is below 1"),
        (comparison(failed=3), "peer failed 3 requests"),
        (comparison(read=[["EMT"], ["ghost"]]), "peer reads something else: 50.0% of the texts are the same"),
    ],
)
def test_each_fault_is_told(found: Comparison, fault: str) -> None:
    assert [item for item in found.faults() if item.startswith(fault)]


def test_a_busy_machine_judges_nobody() -> None:
    assert not comparison(busy=0.4).judged


def test_a_peer_that_answers_nothing_has_no_rate() -> None:
    found = Comparison([row(OURS, 12.0), row("peer", 0.0, 9)], {OURS: READ, "peer": READ}, 0.0)
    assert found.ratios == {"sluiceway_to_peer": float("inf")}
    assert found.faults() == ["peer failed 9 requests"]


def test_texts_are_compared_image_by_image_whatever_their_order() -> None:
    assert equal_share([["a", "b"]], [["b", "a"]]) == 1.0
    assert equal_share([["a"], ["b"]], [["b"], ["a"]]) == 0.0
    assert equal_share([["a", "a"]], [["a"]]) == pytest.approx(2 / 3)
    assert equal_share([[]], [[]]) == 1.0
