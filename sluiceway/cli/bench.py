"""`sluiceway bench`: load on a cluster, and what it does to latency."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import itertools
import json as json_module
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluiceway.cli.inputs import Input, find_inputs
from sluiceway.cli.options import CaOption, ConfigOption, TlsOption, TokenOption, tls_of
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.streams import require_stdout
from sluiceway.cli.target import Target, find_target, parse_params
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors, fail, output, widen_stdout
from sluiceway.client import AsyncClient, Description, Options
from sluiceway.client.connection import Connection
from sluiceway.installation import install_command

if TYPE_CHECKING:
    from sluiceway.bench.arrivals import Trace
    from sluiceway.bench.load import Send
    from sluiceway.bench.report import Report
    from sluiceway.bench.search import Knee
    from sluiceway.bench.summary import Summary
    from sluiceway.cli.bench_display import BenchDisplay

__all__ = ["bench"]

READY_S = 30.0
REFRESH_S = 0.25
# Of a load whose length is its own: as much of it is the warm-up.
WARM_UP_SHARE = 0.1
KNEE_S, RUN_S = 90.0, 30.0


class ArrivalsName(StrEnum):
    """Spelling on the command line."""

    POISSON = "poisson"
    EVEN = "even"


@dataclass(frozen=True)
class Plan:
    """What to measure; exactly one of rate, callers, trace and knee is asked for."""

    inputs: Sequence[Input]
    pipeline: str | None
    params: dict[str, str]
    rate_per_s: float | None
    arrivals: ArrivalsName
    callers: int | None
    trace: Trace | None
    speed: float
    find_knee: bool
    goal_s: float | None
    seconds: float
    warm_up_s: float
    timeout_s: float
    seed: int

    def load_in_words(self) -> str:
        """For the report."""
        if self.find_knee:
            return f"search of the knee, at most {self.seconds:g} s"
        last = f"{self.seconds:g} s after a warm-up of {self.warm_up_s:g} s"
        if self.callers is not None:
            return f"closed loop, {self.callers} in flight, {last}"
        if self.trace is not None:
            return f"open loop, a trace of {len(self.trace.times_s)} arrivals at {self.speed:g} x its speed, {last}"
        return f"open loop, {self.arrivals} arrivals at {self.rate_per_s:g} a second, seed {self.seed}, {last}"


def bench(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE...", help="What to send: as of run. A trace may name it instead."),
    ] = None,
    *,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="Open loop: so many requests a second.")
    ] = None,
    arrivals: Annotated[
        ArrivalsName, typer.Option("--arrivals", help="Of --rate: independent clients, or equal gaps.")
    ] = ArrivalsName.POISSON,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            exists=True,
            dir_okay=False,
            help="Open loop: a file with the seconds of each arrival, a line each, and optionally its source.",
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="Of --trace: 2 plays it in half its time.")
    ] = 1.0,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", min=1, metavar="N", help="Closed loop: so many callers that wait.")
    ] = None,
    find_knee: Annotated[
        bool, typer.Option("--find-knee", help="Find the highest rate that keeps the 99th percentile of --p99.")
    ] = False,
    p99: Annotated[
        float | None, typer.Option("--p99", metavar="MS", help="Latency that 99 of 100 requests are to keep.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            help="How long to measure; default 30, of a trace all of it. Of --find-knee: in all, default 90.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="For each request.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its plots, as one HTML file.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Measure this cluster instead of starting one here."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", metavar="NAME", help="Steps to run; default: the cluster's own choice.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="For the pipeline's calls of APIs; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random arrivals.")] = 1,
    config: ConfigOption = None,
    token: TokenOption = None,
    tls: TlsOption = False,
    ca: CaOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the started servers log.")] = False,
) -> None:
    """Put load on a cluster and measure what it does to latency.

    Requests of an open loop go out when they are due, answered or not, and latency counts from then. docs/bench.md says
    what each figure means.

    Exit codes: 0 measured, 1 nothing was answered, --p99 was not kept or there is no knee, 2 wrong usage.

    [dim]Examples:[/]

    [dim]sluiceway bench photo.jpg --rate 20 --p99 300[/]

    [dim]sluiceway bench scans/ --address localhost:50051 --find-knee --p99 500 --html report.html[/]
    """
    if importlib.util.find_spec("hdrh") is None:
        fail(f"bench needs a histogram that is not installed. Install it with: {install_command('bench')}", EXIT_USAGE)
    _check_one({"--rate": rate, "--in-flight": in_flight, "--trace": trace, "--find-knee": find_knee or None})
    _check_above_0({"--rate": rate, "--speed": speed, "--seconds": seconds, "--timeout": timeout, "--p99": p99})
    if find_knee and p99 is None:
        fail("--find-knee needs --p99: the latency, in ms, that 99 of 100 requests are to keep", EXIT_USAGE)
    found = _read_trace(trace) if trace else None
    names = [*(sources or ()), *(found.names() if found else ())]
    if not names:
        fail("name what to send: image files, folders of images, URLs, or api:NAME?key=value", EXIT_USAGE)
    length_s = found.seconds / speed if found else None
    total_s = seconds or length_s or (KNEE_S if find_knee else RUN_S)
    if length_s:
        total_s = min(total_s, length_s)
    # A trace is played once, so its warm-up is the beginning of itself; other load has one before it.
    warm_up_s = WARM_UP_SHARE * total_s
    inputs = find_inputs(names)
    if found and (unknown := set(found.names()) - {item.name for item in inputs}):
        fail(f"--trace: {min(unknown)} is a folder; its lines name single sources", EXIT_USAGE)
    plan = Plan(
        inputs=inputs,
        pipeline=pipeline,
        params=parse_params(param or ()),
        rate_per_s=rate,
        arrivals=arrivals,
        callers=in_flight,
        trace=found,
        speed=speed,
        find_knee=find_knee,
        goal_s=None if p99 is None else p99 / 1000,
        seconds=total_s - warm_up_s if found else total_s,
        warm_up_s=warm_up_s,
        timeout_s=timeout,
        seed=seed,
    )
    _check_budget(plan)
    require_stdout()
    widen_stdout(data=json)
    encryption = tls_of(tls=tls, ca=ca)
    target = find_target("bench", address, config, pipeline=pipeline, token=token, tls=encryption, show_logs=verbose)
    raise typer.Exit(asyncio.run(_bench(plan, target, as_json=json, html=html)))


def _check_one(loads: Mapping[str, object]) -> None:
    chosen = [name for name, value in loads.items() if value is not None]
    if len(chosen) != 1:
        said = f"not {' and '.join(chosen)}" if chosen else "and none was given"
        fail(f"one of {', '.join(loads)} says how to load the cluster, {said}", EXIT_USAGE)


def _check_above_0(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            fail(f"{name} must be above 0, not {value:g}", EXIT_USAGE)


def _check_budget(plan: Plan) -> None:
    from sluiceway.bench.search import LEAST_BUDGET_S, largest_goal_s  # noqa: PLC0415 - see `_bench`

    if not plan.find_knee:
        return
    if plan.seconds < LEAST_BUDGET_S:
        fail(f"--find-knee needs --seconds of at least {LEAST_BUDGET_S:g}", EXIT_USAGE)
    assert plan.goal_s is not None
    if plan.goal_s > (largest_s := largest_goal_s(plan.seconds)):
        fail(
            f"in {plan.seconds:g} s a --p99 of at most {largest_s * 1000:g} ms can be judged; give more --seconds",
            EXIT_USAGE,
        )


def _read_trace(path: Path) -> Trace:
    from sluiceway.bench.arrivals import TraceFault, read_trace  # noqa: PLC0415 - see `_bench`

    try:
        trace = read_trace(path)
    except TraceFault as fault:
        fail(f"--trace: {fault}", EXIT_USAGE)
    if not trace.seconds:
        fail(f"--trace: {path} has no two arrivals at different times", EXIT_USAGE)
    return trace


async def _bench(plan: Plan, target: Target, *, as_json: bool, html: Path | None) -> int:
    # Not needed for `--help`, and slow to import.
    from sluiceway.cli.bench_display import BenchDisplay  # noqa: PLC0415

    stop_on_signals()
    try:
        async with target.running() as (address, tls):
            async with AsyncClient(address, token=target.token, tls=tls) as client:
                server = await client.wait_ready(READY_S, pipeline=plan.pipeline)
            with BenchDisplay() as display:
                connection = Connection(address, tls=tls, token=target.token)
                report = await _measured(plan, connection, server, display)
    except asyncio.CancelledError:
        errors.print("stopped")
        return 130
    return _give_out(report, as_json=as_json, html=html)


async def _measured(plan: Plan, connection: Connection, server: Description, display: BenchDisplay) -> Report:
    from sluiceway.bench.caller import REGIONS_FAILED, Caller  # noqa: PLC0415 - see `_bench`
    from sluiceway.bench.outcome import OK  # noqa: PLC0415
    from sluiceway.bench.report import Report  # noqa: PLC0415
    from sluiceway.bench.report import Target as Measured  # noqa: PLC0415

    begun = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    refreshing = asyncio.create_task(_refresh(display))
    try:
        sources = [item.source for item in plan.inputs]
        send = Caller(connection, sources, Options(), pipeline=plan.pipeline, params=plan.params)
        # One of each: what is wrong with a source is said now, and not as a share of failures.
        for place, item in enumerate(plan.inputs):
            answer = await send(place, plan.timeout_s)
            if answer.kind not in (OK, REGIONS_FAILED):
                fail(f"{item.name}: {answer.kind}", EXIT_FAILED)
        knee, summary = await _run(plan, send, display)
    finally:
        refreshing.cancel()
        await connection.close()
    measured = Measured(
        connection.address, server.pipeline(plan.pipeline).name, [item.name for item in plan.inputs], server
    )
    return Report(measured, plan.load_in_words(), begun, summary, knee)


async def _run(plan: Plan, send: Send, display: BenchDisplay) -> tuple[Knee | None, Summary | None]:
    from sluiceway.bench import arrivals, runs  # noqa: PLC0415 - see `_bench`

    count, chance = len(plan.inputs), random.Random(plan.seed)
    if plan.find_knee:
        assert plan.goal_s is not None
        return await runs.find_knee(
            send, count, goal_s=plan.goal_s, budget_s=plan.seconds, chance=chance, watch=display
        )
    window = runs.Window(plan.warm_up_s, plan.seconds)
    if plan.callers is not None:
        load = await runs.run_closed(send, plan.callers, count, window, timeout_s=plan.timeout_s, watch=display)
    else:
        due: Iterator[arrivals.Arrival]
        if plan.trace is not None:
            played = plan.trace.arrivals([item.name for item in plan.inputs], speed=plan.speed)
            due = itertools.takewhile(lambda arrival: arrival.due_s < window.end_s, played)
        elif plan.arrivals is ArrivalsName.POISSON:
            due = arrivals.poisson(plan.rate_per_s or 0.0, window.end_s, count, chance)
        else:
            due = arrivals.evenly(plan.rate_per_s or 0.0, window.end_s, count)
        load = await runs.run_open(send, due, window, timeout_s=plan.timeout_s, watch=display)
    return None, window.summary(load, plan.goal_s, by_end=plan.callers is not None)


async def _refresh(display: BenchDisplay) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        display.refresh()


def _give_out(report: Report, *, as_json: bool, html: Path | None) -> int:
    from sluiceway.bench.page import to_html  # noqa: PLC0415 - see `_bench`
    from sluiceway.bench.table import print_report  # noqa: PLC0415

    if as_json:
        sys.stdout.write(json_module.dumps(report.to_dict(), ensure_ascii=False) + "\n")
    else:
        print_report(report, output())
    if html is not None:
        try:
            html.write_text(to_html(report), encoding="utf-8")
        except OSError as error:
            fail(f"cannot write {html}: {error.strerror}", EXIT_FAILED)
        errors.print(f"the report with its plots is in {html}", markup=False, soft_wrap=True)
    return 0 if report.passed else EXIT_FAILED
