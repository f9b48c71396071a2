"""The story of a request as people read it: a waterfall, what it waited for, with whom, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluiceway.cli.terminal import shown
from sluiceway.client.stories import CriticalPath, critical_path
from sluiceway.client.stories.path import UNACCOUNTED
from sluiceway.client.stories.timeline import Bar, timeline
from sluiceway.client.stories.types import Call, Explanation, ServerStory, SpanKind
from sluiceway.client.stories.words import company, describe, describe_segment
from sluiceway.errors import SluicewayError

__all__ = ["print_story"]

BAR_LEAST, BAR_MOST = 24, 72
LABEL_MOST = 44
# Rows of one source, unless all are asked for: those that took the longest, and whatever failed.
MOST_ROWS = 40
# Of those that took no time to speak of.
SHORT_PART = 0.002

_STYLES = {
    SpanKind.DOOR: "yellow",
    SpanKind.TURN: "yellow",
    SpanKind.GATE: "yellow",
    SpanKind.ROOM: "yellow",
    SpanKind.LINE: "yellow",
    SpanKind.BIND: "yellow",
    SpanKind.QUEUE: "yellow",
    SpanKind.TELL: "yellow",
    SpanKind.CALL: "blue",
    SpanKind.FETCH: "magenta",
    SpanKind.API: "magenta",
    SpanKind.BATCH: "green",
}
_OWN = "cyan"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_story(console: Console, explanation: Explanation, *, whole: bool = False) -> None:
    """Print everything that is told of a request.

    Args:
        console: where.
        explanation: that has something to tell.
        whole: with every span, however short.
    """
    for server, job in explanation.jobs:
        _print_job(console, explanation, server, job, whole=whole)
    for server in explanation.servers:
        for call in server.calls:
            # Calls of stages are told within the job that made them.
            if not call.is_job and (not explanation.jobs or server.server == "orchestrator"):
                _print_call(console, explanation, server, call, whole=whole)
    _print_silent(console, explanation)


def _print_job(console: Console, explanation: Explanation, server: ServerStory, job: Call, *, whole: bool) -> None:
    console.print(_heading(explanation, server, job), soft_wrap=True)
    if job.before_ms >= 1:
        console.print(Text(f"before it was accepted: {_ms(job.before_ms)} to be let in and read", style="dim"))
    bars = list(timeline(explanation, server, job))
    for source in job.sources:
        if len(job.sources) > 1:
            console.print(Text(f"source {source.source}, {_ms(source.duration_ms)}", style="bold"))
        its = _of_source(bars, source.source)
        _print_bars(console, its, job.duration_ms, whole=whole)
        if source.error is not None:
            _say(console, f"failed: {_why(source.error)}", "red")
        _print_trouble(console, its)
        _print_company(console, its)
        if not job.running:
            _print_path(console, critical_path(explanation, job, source.source, server.server))
    if job.spans_left_out:
        console.print(Text(f"{job.spans_left_out} spans were too many to be remembered", style="yellow"))
    console.print()


def _print_call(console: Console, explanation: Explanation, server: ServerStory, call: Call, *, whole: bool) -> None:
    console.print(_heading(explanation, server, call), soft_wrap=True)
    bars = [Bar(server, span, span.start_ms) for span in call.spans]
    _print_bars(console, bars, call.duration_ms, whole=whole)
    _print_trouble(console, bars)
    _print_company(console, bars)
    console.print()


def _heading(explanation: Explanation, server: ServerStory, call: Call) -> Text:
    text = Text(explanation.request_id, style="bold")
    where = " at ".join(part for part in (server.server, server.address) if part)
    facts = [call.method, f"pipeline {call.pipeline}" if call.pipeline else "", where, f"{_ago(call.ago_ms)} ago"]
    text.append("  " + shown(", ".join(fact for fact in facts if fact)), style="dim")
    text.append(f"  {_ms(call.duration_ms)}" + (" so far, and runs" if call.running else ""))
    if call.error is not None:
        text.append(f"  failed: {_why(call.error)}", style="red")
    return text


def _of_source(bars: Sequence[Bar], source: str) -> list[Bar]:
    """Bars of one source: its own spans, and those of replicas behind each of its calls."""
    its: list[Bar] = []
    mine = False
    for bar in bars:
        mine = bar.span.source == source if bar.depth == 0 else mine
        if mine:
            its.append(bar)
    return its


def _print_bars(console: Console, bars: Sequence[Bar], total_ms: float, *, whole: bool) -> None:
    rows = list(bars) if whole else _worth_telling(bars, total_ms)
    width = max(BAR_LEAST, min(BAR_MOST, console.width - LABEL_MOST - 24))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, max_width=LABEL_MOST, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for bar in rows:
        style = "red" if bar.span.error is not None else _STYLES.get(bar.span.kind, _OWN)
        label = Text("  " * bar.depth + shown(describe(bar.span)), style="" if bar.depth == 0 else "dim")
        table.add_row(label, _ms(bar.duration_ms), Text(_drawn(bar, total_ms, width), style=style))
    console.print(table)
    if left := len(bars) - len(rows):
        console.print(Text(f"and {left} more that took next to nothing (--all shows them)", style="dim"))


def _worth_telling(bars: Sequence[Bar], total_ms: float) -> list[Bar]:
    kept = [bar for bar in bars if bar.span.error is not None or bar.duration_ms >= SHORT_PART * total_ms]
    if len(kept) > MOST_ROWS:
        longest = {id(bar) for bar in sorted(kept, key=lambda bar: -bar.duration_ms)[:MOST_ROWS]}
        kept = [bar for bar in kept if id(bar) in longest]
    return kept


def _drawn(bar: Bar, total_ms: float, width: int) -> str:
    """A bar at its place, to an eighth of a letter."""
    if total_ms <= 0:
        return ""
    scale = width / total_ms
    start = min(max(bar.start_ms, 0.0) * scale, width - 0.125)
    length = max(min(bar.duration_ms * scale, width - start), 0.125)
    whole, rest = divmod(round(length * 8), 8)
    return " " * int(start) + "█" * whole + (_EIGHTHS[rest] if rest else "")


def _print_trouble(console: Console, bars: Sequence[Bar]) -> None:
    """What was tried again, and why."""
    for bar in bars:
        if bar.span.error is not None:
            text = f"{describe(bar.span)}: {_why(bar.span.error)}"
            _say(console, f"  failed after {_ms(bar.duration_ms)}: {text}", "red")
        elif bar.span.failed_items:
            _say(console, f"  {describe(bar.span)}: {bar.span.failed_items} of {bar.span.items} failed", "red")
        elif bar.span.batch is not None and bar.span.batch.fault and bar.span.kind is SpanKind.BATCH:
            text = f"{bar.server.server}: {company(bar.span)} on {describe(bar.span)}: {bar.span.batch.fault}"
            _say(console, f"  {text}", "red")


def _print_company(console: Console, bars: Sequence[Bar]) -> None:
    """With whom it was computed."""
    for bar in bars:
        if bar.span.kind is SpanKind.BATCH and bar.span.batch is not None and not bar.span.batch.fault:
            text = f"{bar.server.server} {describe(bar.span)}: {company(bar.span)}"
            _say(console, f"  {text}, computed in {_ms(bar.span.batch.compute_ms)}", "dim")


def _print_path(console: Console, path: CriticalPath) -> None:
    """What it waited for, the longest first."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in (0, 3):
        table.add_column(justify="right" if column else "left", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for what, took_ms in _parts(path):
        share = took_ms / path.total_ms if path.total_ms > 0 else 0.0
        style = "yellow" if what == describe_segment(UNACCOUNTED) else ""
        table.add_row(Text(shown(what), style=style), _ms(took_ms), f"{share:.0%}")
    console.print(Text("What it waited for", style="bold"))
    console.print(table)
    console.print(
        Text(f"{path.accounted:.1%} of {_ms(path.total_ms)} accounted for, {_ms(path.unaccounted_ms)} not", style="dim")
    )


def _parts(path: CriticalPath) -> Iterator[tuple[str, float]]:
    for what, server, step, took_ms in path.sums():
        if took_ms < SHORT_PART * path.total_ms and what != UNACCOUNTED:
            continue
        where = ", ".join(part for part in (server, f"step {step}" if step else "") if part)
        yield describe_segment(what) + (f"  ({where})" if where else ""), took_ms


def _print_silent(console: Console, explanation: Explanation) -> None:
    """Who could have told more, and did not."""
    for server in explanation.silent:
        where = " at ".join(part for part in (server.server, server.address) if part)
        if server.error is not None:
            why = _why(server.error)
        elif server.remembers_ms:
            why = f"does not remember it, and remembers {_ago(server.remembers_ms)}"
        else:
            why = "remembers nothing; it may have been started since"
        if server.error is not None or server.server != "orchestrator":
            _say(console, f"{where}: {why}", "yellow")


def _say(console: Console, text: str, style: str) -> None:
    console.print(Text(shown(text), style=style), soft_wrap=True)


def _why(error: SluicewayError) -> str:
    story = f" ({error.metadata['story']})" if error.metadata.get("story") else ""
    return f"{error.message or error.code} ({error.reason}){story}"


def _ms(value_ms: float) -> str:
    if value_ms >= 10_000:
        return f"{value_ms / 1000:.1f} s"
    return f"{value_ms:.0f} ms" if value_ms >= 100 else f"{value_ms:.1f} ms" if value_ms >= 1 else f"{value_ms:.2f} ms"


def _ago(value_ms: float) -> str:
    seconds = value_ms / 1000
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
