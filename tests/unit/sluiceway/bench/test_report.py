"""Reports: the table, and the page that asks nothing of any network."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from sluiceway.bench.knee import OpenTrial
from sluiceway.bench.outcome import OK, Answer, Outcome
from sluiceway.bench.page import to_html
from sluiceway.bench.plots import Line, bars, linear, logarithmic, plot
from sluiceway.bench.report import Report, Target
from sluiceway.bench.search import Knee
from sluiceway.bench.summary import Summary, summarise
from sluiceway.bench.table import print_report
from sluiceway.client.description import Description, Pipeline
from sluiceway.client.results import StageTimings, Timings

SERVER = Description("0.1.0", (), (Pipeline("read", ()),), "read", (), (), False, 64, 0, 0, 30.0, 300.0)
TIMINGS = Timings(1.0, {"text": StageTimings(1, 20, 25, 2)}, 40.0)
FOUND = Knee(0.5, 74.5, 72.0, 77.0, 0.05, 80.0, "", (OpenTrial(74.0, [0.1] * 200), OpenTrial(79.0, [math.inf] * 200)))
NONE = Knee(0.5, None, None, None, None, 0.0, "a single caller got no answer")
ANSWERED = [Outcome(number / 10, number / 10, number / 10 + 0.1, Answer(OK, TIMINGS)) for number in range(40)]
REFUSED = [Outcome(number / 10, number / 10, number / 10 + 0.001, Answer("QUEUE_FULL")) for number in range(40)]


def report(summary: Summary | None, knee: Knee | None = None, name: str = "a.jpg") -> Report:
    return Report(
        Target("localhost:50051", "read", (name,), SERVER), "open loop", "2026-11-30T00:00:00+00:00", summary, knee
    )


REPORTS = {
    "answered": report(summarise(ANSWERED, 0.5, 4.0, 0.2)),
    "without a goal": report(summarise(ANSWERED, 0.5, 4.0)),
    "refused": report(summarise(REFUSED, 0.5, 4.0, 0.2)),
    "nothing due": report(summarise([], 0.5, 4.0, 0.2)),
    "one answer": report(summarise(ANSWERED[:1], 0.0, 4.0, 0.2)),
    "knee": report(summarise(ANSWERED, 0.5, 4.0, 0.2), FOUND),
    "no knee": report(None, NONE),
}


class Reader(HTMLParser):
    """Takes down what a browser would load, and whether every element ends."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Ends by itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("found", REPORTS.values(), ids=REPORTS)
def test_the_page_stands_alone_and_has_the_figures_inside(found: Report) -> None:
    page = to_html(found)
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.loads == []
    assert not re.search(r"https?://|url\(|@import|<link", page)
    inside = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert inside
    assert json.loads(inside[1]) == json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert not re.search(r"\b(nan|inf)\b", page)


def test_names_are_text_wherever_they_stand() -> None:
    name = "</script><script>alert(1)</script>.jpg"
    page = to_html(report(summarise(ANSWERED, 0.5, 4.0), name=name))
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert "<script>alert" not in page
    assert page.count("</script>") == 1


@pytest.mark.parametrize("found", REPORTS.values(), ids=REPORTS)
def test_the_table_can_always_be_printed(found: Report) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(found, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "localhost:50051" in said
    if found.knee is FOUND:
        assert "74.5 a second keep a 99th percentile of 500 ms, with 90 % confidence between 72.0 and 77.0" in said
        assert "more than 1 in 100 not answered" in said
    if found.knee is NONE:
        assert "no rate keeps a 99th percentile of 500 ms: a single caller got no answer" in said


def test_what_was_asked_for_decides_whether_it_passed() -> None:
    assert {name: found.passed for name, found in REPORTS.items()} == {
        "answered": True,
        "without a goal": True,
        "refused": False,
        "nothing due": False,
        "one answer": True,
        "knee": True,
        "no knee": False,
    }


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [0.001, 7000.0], [1e-9, 1e9]])
def test_axes_hold_all_values(values: list[float]) -> None:
    for axis in (linear("x", values), linear("x", values, from_zero=False), logarithmic("x", values)):
        assert axis.low < axis.high
        assert 2 <= len(axis.ticks) <= 30
        for value in values:
            assert -1e-9 <= axis.place(value) <= 1 + 1e-9


def test_pictures_hold_their_points() -> None:
    x, y = linear("seconds", [0, 10]), logarithmic("ms", [1, 100])
    drawn = plot("a & b", x, y, [Line("one", [(0, 1), (10, 100)]), Line("two", [(5, 10_000)], dots=True)])
    assert 'aria-label="a &amp; b"' in drawn
    assert re.findall(r'points="([^"]*)"', drawn) == ["64.0,256.0 704.0,16.0"]
    # Beyond the axis is at its end.
    assert 'cy="16.0"' in drawn
    assert bars("none", [("nothing", 0.0)], "ms").count("<rect") == 1


def keys(plain: Any, prefix: str = "") -> set[str]:
    if not isinstance(plain, dict):
        return {prefix}
    return {found for name, value in plain.items() for found in keys(value, f"{prefix}.{name}" if prefix else name)}


def test_the_names_of_the_json_are_those_of_the_documentation() -> None:
    assert {
        "summary.latency_ms.p99",
        "summary.goodput_per_s.low",
        "knee.rate_per_s",
        "knee.high_per_s",
        "passed",
    } <= keys(REPORTS["knee"].to_dict())
