"""A report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from sluiceway.bench.intervals import Estimate
from sluiceway.bench.latency import PERCENTILES
from sluiceway.bench.report import Report
from sluiceway.bench.search import Knee
from sluiceway.bench.summary import Summary

__all__ = ["knee_in_words", "print_report", "warnings_of"]


def print_report(report: Report, console: Console) -> None:
    """Print it."""
    facts = _table("", "")
    for name, text in report.facts().items():
        facts.add_row(f"[dim]{name}[/]", text)
    console.print(facts)
    if report.knee is not None:
        _print_knee(report.knee, console)
    if report.summary is not None:
        if report.knee is not None:
            console.print("[bold]the trial nearest to it[/]")
        _print_summary(report.summary, console)
        for warning in warnings_of(report.summary):
            console.print(f"[yellow]{warning}[/]", soft_wrap=True)


def knee_in_words(knee: Knee) -> str:
    """One sentence."""
    goal = f"{knee.goal_s * 1000:g} ms"
    if knee.rate_per_s is None:
        return f"no rate keeps a 99th percentile of {goal}: {knee.why}"
    between = (
        ""
        if knee.low_per_s is None
        else f", with 90 % confidence between {knee.low_per_s:.1f} and {knee.high_per_s:.1f}"
    )
    return f"{knee.rate_per_s:.1f} a second keep a 99th percentile of {goal}{between}"


def warnings_of(summary: Summary) -> Iterator[str]:
    """What a reader must know before believing the figures."""
    if summary.generator_late:
        late_s = summary.late.percentile_s(99) or 0.0
        yield (
            f"This client sent 1 in 100 requests {late_s * 1000:.0f} ms late or later: it, or its machine, "
            "was too busy, and that time is in the figures. Run it on another machine."
        )
    if 0 < len(summary.latencies) < 1000:
        yield (
            f"{len(summary.latencies)} answers: what is above p99 rests on fewer than ten of them. Measure for longer."
        )


def _print_knee(knee: Knee, console: Console) -> None:
    console.print(f"[bold]{knee_in_words(knee)}[/]", soft_wrap=True)
    table = _table("offered a second", "requests", "p99 ms")
    for trial in sorted(knee.trials, key=lambda item: item.rate_per_s):
        p99 = f"{trial.p99_s * 1000:.1f}" if trial.p99_s < float("inf") else "more than 1 in 100 not answered"
        table.add_row(f"{trial.rate_per_s:.1f}", str(len(trial.latencies_s)), p99)
    console.print(table)
    base = "no answer" if knee.base_s is None else f"{knee.base_s * 1000:.1f} ms"
    console.print(
        f"a single caller waits {base}; callers that wait get {knee.capacity_per_s:.1f} answers a second at most"
    )
    console.print("")


def _print_summary(summary: Summary, console: Console) -> None:
    rates = _table("", "a second", "95 % interval")
    rates.add_row("offered", f"{summary.offered_per_s:.2f}", "")
    rates.add_row("answered", *_estimate(summary.answered_per_s))
    if summary.goal_s is not None:
        rates.add_row(f"answered within {summary.goal_s * 1000:g} ms", *_estimate(summary.goodput_per_s))
    console.print(rates)
    ends = ", ".join(f"{count} {kind}" for kind, count in summary.outcomes.items())
    console.print(f"{summary.requests} requests in {summary.seconds:g} s: {ends or 'none'}", soft_wrap=True)
    if not len(summary.latencies):
        return
    table = _table(*(["max" if item == 100 else f"p{item:g}" for item in PERCENTILES]), "mean")
    values = [summary.latencies.percentile_s(item) for item in PERCENTILES] + [summary.latencies.mean_s()]
    table.add_row(*(f"{(value or 0.0) * 1000:.1f}" for value in values))
    console.print("\n[bold]latency, ms[/] [dim](from when a request was due)[/]")
    console.print(table)
    parts = _table("where the time went", "mean ms", "p99 ms")
    for part in summary.parts:
        parts.add_row(part.name, f"{part.mean_ms:.2f}", f"{part.p99_ms:.2f}")
    console.print("")
    console.print(parts)


def _estimate(value: Estimate) -> tuple[str, str]:
    return f"{value.value:.2f}", f"{value.low:.2f} to {value.high:.2f}"


def _table(*columns: str) -> Table:
    table = Table(
        *columns, box=box.SIMPLE_HEAD if any(columns) else None, pad_edge=False, header_style="dim",
        show_header=any(columns), padding=(0, 2, 0, 0),
    )  # fmt: skip
    if any(columns):
        for column in table.columns[0 if columns[0] and columns[0][0] in "opm" and columns[-1] != "p99 ms" else 1 :]:
            column.justify = "right"
    return table
