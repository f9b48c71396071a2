"""A report as one HTML file that asks nothing of any network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator

from sluiceway.bench.latency import PERCENTILES
from sluiceway.bench.plots import Axis, Line, bars, linear, logarithmic, plot
from sluiceway.bench.report import Report
from sluiceway.bench.search import Knee
from sluiceway.bench.summary import Summary
from sluiceway.bench.table import knee_in_words, warnings_of

__all__ = ["to_html"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --line: #d8dee8; --paper: #fff;
  --first: #2364aa; --second: #d1495b; --third: #5b8c3e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --dim: #98a2b3; --line: #344054; --paper: #12161c;
  --first: #6fa8dc; --second: #ef8a98; --third: #9ccc65; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; }
th, figcaption { color: var(--dim); font-weight: normal; } td.n, th.n { text-align: right; }
.warning { border-left: 4px solid var(--second); padding-left: .75rem; } .found { font-size: 1.15rem; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--dim); }
.grid { stroke: var(--line); stroke-width: 1; } figure { margin: 1rem 0; }
.legend span { margin-right: 1.2rem; color: var(--dim); }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: 2px;
  vertical-align: -1px; }
"""


def to_html(report: Report) -> str:
    """Write the page; the figures of `--json` are inside, as a script element of type application/json."""
    # A name of a source may hold tags, and some of them mean something inside a script element as well.
    data = json.dumps(report.to_dict(), ensure_ascii=False).replace("<", "\\u003c")
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>sluiceway bench: {html.escape(report.target.address)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f'{body}\n<script type="application/json" id="report">{data}</script>\n</body>\n</html>\n'
    )


def _body(report: Report) -> Iterator[str]:
    yield f"<h1>sluiceway bench: {html.escape(report.target.address)}</h1>"
    if report.knee is not None:
        yield f'<p class="found">{html.escape(knee_in_words(report.knee))}</p>'
    if report.summary is not None:
        for warning in warnings_of(report.summary):
            yield f'<p class="warning">{html.escape(warning)}</p>'
    rows = (f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in report.facts().items())
    yield f"<table>{''.join(rows)}</table>"
    if report.knee is not None and report.knee.trials:
        yield from _knee(report.knee)
    if report.summary is not None:
        if report.knee is not None:
            yield "<p>All that follows is of the trial whose rate was nearest to the knee.</p>"
        yield from _summary(report.summary)


def _figure(title: str, picture: str, caption: str) -> str:
    return f"<h2>{html.escape(title)}</h2><figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _knee(knee: Knee) -> Iterator[str]:
    # What has no percentile, since too many had no answer, lies at the upper edge.
    top_ms = 4 * knee.goal_s * 1000
    points = [(trial.rate_per_s, min(trial.p99_s * 1000, top_ms)) for trial in knee.trials]
    found = [rate for rate in (knee.rate_per_s, knee.low_per_s, knee.high_per_s) if rate is not None]
    x = linear("offered, a second", [*(rate for rate, _ in points), *found], from_zero=False)
    goal_ms = knee.goal_s * 1000
    y = logarithmic("p99, ms", [goal_ms, *(value for _, value in points)])
    lines = [Line("trials", points, dots=True), Line("goal", [(x.low, goal_ms), (x.high, goal_ms)], dashed=True)]
    if knee.rate_per_s is not None:
        lines.append(Line("knee", [(knee.rate_per_s, y.low), (knee.rate_per_s, y.high)]))
    yield _figure(
        "The knee", plot("99th percentile of the latency by offered rate", x, y, lines),
        "Each point is a trial with Poisson arrivals at one rate.",
    )  # fmt: skip


def _summary(summary: Summary) -> Iterator[str]:
    rows = [("offered", f"{summary.offered_per_s:.2f}", "")]
    rates = [("answered", summary.answered_per_s)]
    if summary.goal_s is not None:
        rates.append((f"answered within {summary.goal_s * 1000:g} ms", summary.goodput_per_s))
    rows += [(name, f"{rate.value:.2f}", f"{rate.low:.2f} to {rate.high:.2f}") for name, rate in rates]
    cells = "".join(
        f'<tr><td>{name}</td><td class="n">{rate}</td><td class="n">{span}</td></tr>' for name, rate, span in rows
    )
    heads = '<tr><th></th><th class="n">a second</th><th class="n">95 % interval</th></tr>'
    yield f"<h2>Rates</h2><table>{heads}{cells}</table>"
    ends = ", ".join(f"{count} {kind}" for kind, count in summary.outcomes.items())
    yield f"<p>{summary.requests} requests in {summary.seconds:g} s: {html.escape(ends) or 'none'}</p>"
    if not len(summary.latencies):
        return
    heads = "".join(f'<th class="n">{"max" if item == 100 else f"p{item:g}"}</th>' for item in PERCENTILES)
    values = "".join(
        f'<td class="n">{(summary.latencies.percentile_s(item) or 0.0) * 1000:.1f}</td>' for item in PERCENTILES
    )
    yield f"<h2>Latency, ms</h2><table><tr>{heads}</tr><tr>{values}</tr></table>"
    yield _figure(
        "Latency by percentile", _percentiles(summary), "From when a request was due, not from when it could be sent."
    )
    yield _figure(
        "Latency over time",
        _latency_over_time(summary),
        "By when requests were due; the warm-up is shown and not counted.",
    )
    yield _figure("Requests over time", _requests_over_time(summary), "By the second in which they were due.")
    yield _figure(
        "Where the time went", bars("mean of each part", [(part.name, part.mean_ms) for part in summary.parts], "ms"),
        "Means. Steps overlap, since regions go on as soon as they are found, so the parts do not add up.",
    )  # fmt: skip


def _percentiles(summary: Summary) -> str:
    curve = [(percentile, value_s * 1000) for percentile, value_s in summary.latencies.curve() if percentile < 100]
    # Each nine takes the same room. The last one that this many requests can tell is where the axis ends.
    nines = max(1.0, math.log10(max(10, len(summary.latencies))))
    marks = [(mark, f"{mark:g} %") for mark in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999) if _nines(mark) <= nines]
    x = Axis("percentile", 0.0, 100 - 100 / 10**nines, lambda value: _nines(value) / nines, marks)
    points = [point for point in curve if _nines(point[0]) <= nines]
    y = linear("latency, ms", [value for _, value in points])
    return plot("latency by percentile", x, y, [Line("latency", points)])


def _nines(percentile: float) -> float:
    return -math.log10(max(1e-12, 1 - percentile / 100))


def _latency_over_time(summary: Summary) -> str:
    middle = [(second.begin_s, second.p50_ms) for second in summary.over_time if second.p50_ms is not None]
    high = [(second.begin_s, second.p99_ms) for second in summary.over_time if second.p99_ms is not None]
    x = linear("seconds", [time_s for time_s, _ in middle])
    y = linear("latency, ms", [value for _, value in high])
    return plot("latency over time", x, y, [Line("p50", middle), Line("p99", high)])


def _requests_over_time(summary: Summary) -> str:
    seconds = summary.over_time
    x = linear("seconds", [second.begin_s for second in seconds])
    y = linear("requests", [float(second.due) for second in seconds])
    lines = [
        Line("due", [(second.begin_s, second.due) for second in seconds]),
        Line("not answered in full", [(second.begin_s, second.failed) for second in seconds]),
    ]
    return plot("requests over time", x, y, lines)
