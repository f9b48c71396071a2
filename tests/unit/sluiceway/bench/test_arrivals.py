"""When requests are due."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import pytest

from sluiceway.bench.arrivals import TraceFault, evenly, poisson, read_trace


def test_poisson_arrivals_have_their_rate_and_gaps_that_forget() -> None:
    due = [arrival.due_s for arrival in poisson(50, 400, 1, random.Random(3))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert due == sorted(due)
    assert due[-1] < 400
    assert len(due) == pytest.approx(20_000, rel=0.03)
    # Of exponential gaps the standard deviation is the mean.
    assert statistics.pstdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.03)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert list(poisson(9, 5, 3, random.Random(1))) == list(poisson(9, 5, 3, random.Random(1)))
    assert list(poisson(9, 5, 3, random.Random(1))) != list(poisson(9, 5, 3, random.Random(2)))


def test_sources_come_in_turn() -> None:
    assert [arrival.source for arrival in evenly(4, 1.5, 3)] == [0, 1, 2, 0, 1, 2]
    assert [arrival.source for arrival in poisson(30, 1, 2, random.Random(1))][:4] == [0, 1, 0, 1]


def test_even_arrivals_have_equal_gaps() -> None:
    assert [arrival.due_s for arrival in evenly(4, 1, 1)] == [0.0, 0.25, 0.5, 0.75]


def test_a_trace_is_played_at_its_speed(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("# morning\n\n100.5\n100.0\n102\n")
    trace = read_trace(tmp_path / "trace")
    assert trace.times_s == (0.0, 0.5, 2.0)
    assert (trace.seconds, trace.rate_per_s) == (3.0, 1.0)
    assert [(arrival.due_s, arrival.source) for arrival in trace.arrivals(["a", "b"], speed=2)] == [
        (0.0, 0), (0.25, 1), (1.0, 0)
    ]  # fmt: skip


def test_a_trace_names_what_it_sends(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("0 a page.png\n0 https://example.org/b.jpg\n1 a page.png\n2 api:shop?id=3\n")
    trace = read_trace(tmp_path / "trace")
    page = str(tmp_path / "a page.png")
    assert trace.names() == (page, "https://example.org/b.jpg", "api:shop?id=3")
    assert [arrival.source for arrival in trace.arrivals(list(trace.names()))] == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no arrivals"),
        ("# only words\n", "has no arrivals"),
        ("0\nsoon\n", "line 2: 'soon' is not a number of seconds"),
        ("nan\n", "line 1: 'nan' is not a time"),
        ("inf\n", "is not a time"),
        ("0 a.png\n1\n", "1 of 2 lines name what they send"),
    ],
)
def test_a_trace_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(TraceFault, match=said):
        read_trace(tmp_path / "trace")


def test_a_trace_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary"):
        with pytest.raises(TraceFault, match="cannot read"):
            read_trace(tmp_path / name)
