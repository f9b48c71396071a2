"""`sluiceway plan`: what a load needs and costs, in simulation."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors, fail, output
from sluiceway_cluster.commands.units import read_p99_ms, read_rate

if TYPE_CHECKING:
    from sluiceway_simulation.planning.autoscaler import Tried
    from sluiceway_simulation.planning.fleet import Fleet, Wanted
    from sluiceway_simulation.profiles.profile import PipelineProfile

__all__ = ["plan"]

# Of a trace: the peak is that of the fullest window.
WINDOW_S = 10.0
HOURS = 24


def plan(
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="FILE|NAME",
            help="What `sluiceway tune` measured (profile.json), or the name of a machine that is known.",
        ),
    ],
    *,
    p99: Annotated[str, typer.Option("--p99", metavar="MS", help="99 of 100 within this, such as 300ms.")],
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="R", help="So many images a second, such as 5000/s.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            exists=True,
            dir_okay=False,
            help="In place of --rate: a file with the seconds of each arrival, a line each, as bench has it.",
        ),
    ] = None,
    core_price: Annotated[float, typer.Option("--core-price", min=0, help="Of a core for an hour.")] = 0.04,
    gpu_price: Annotated[float, typer.Option("--gpu-price", min=0, help="Of a GPU for an hour.")] = 2.50,
    values: Annotated[
        Path | None, typer.Option("--values", metavar="FILE", help="Write Helm values of the cheapest plan.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")] = False,
) -> None:
    """Say what a load needs: servers of each stage, cores, GPUs, settings of the autoscaler, and what that costs.

    The servers' own code is run on a virtual clock with the times of a profile. Large clusters are planned as like
    cells. Prices are examples: give yours.

    Exit codes: 0 planned, 1 no number of such servers is fast enough, 2 wrong usage.

    [dim]Examples:[/]

    [dim]sluiceway plan --profile tuned/profile.json --rate 500/s --p99 300ms[/]

    [dim]sluiceway plan --profile xeon16-h100-text-small --rate 1000/s --p99 400ms[/]

    [dim]sluiceway plan --profile tuned/profile.json --trace monday.txt --p99 300ms --values values.yaml[/]
    """
    require_servers("plan")
    from sluiceway_simulation.planning.autoscaler import DAY, try_scalings  # noqa: PLC0415 - as `require_servers`
    from sluiceway_simulation.planning.fleet import Prices, Wanted, fleets  # noqa: PLC0415
    from sluiceway_simulation.planning.search import NoPlan  # noqa: PLC0415

    if (rate is None) == (trace is None):
        fail("one of --rate and --trace says what comes in", EXIT_USAGE)
    known = _profile(profile)
    day: Sequence[float] = DAY
    if trace is not None:
        peak_per_s, day = _day_of(trace)
    else:
        assert rate is not None
        peak_per_s = read_rate(rate)
    wanted = Wanted(peak_per_s, read_p99_ms(p99))
    try:
        found = fleets(known, wanted, Prices(core_price, gpu_price), tell=_tell)
    except NoPlan as fault:
        fail(f"no number of these servers keeps {wanted.p99_ms:g} ms: {fault}", EXIT_FAILED)
    _tell("trying the autoscaler against a step of the load, and over a day")
    scalings = try_scalings(known, found[0].workers, wanted, day)
    if values is not None:
        _write_values(values, known, found[0], scalings[0])
    if json:
        data = {
            "wanted": asdict(wanted),
            "plans": [asdict(fleet) for fleet in found],
            "autoscaler": [asdict(tried) for tried in scalings],
            "error": known.error,
        }
        sys.stdout.write(json_module.dumps(data) + "\n")
    else:
        _show(known, wanted, found, scalings)


def _profile(name: str) -> PipelineProfile:
    """A file, or one that is shipped."""
    from sluiceway_simulation.profiles.profile import PipelineProfile, ProfileFault, shipped  # noqa: PLC0415

    path, known = Path(name), shipped()
    if not path.exists() and name not in known:
        fail(f"--profile: {name} is no file, and no machine of {', '.join(known)}", EXIT_USAGE)
    try:
        return PipelineProfile.read(path if path.exists() else known[name])
    except ProfileFault as fault:
        fail(f"--profile: {fault}", EXIT_USAGE)


def _day_of(path: Path) -> tuple[float, list[float]]:
    """The peak of a trace, and each 24th of it as a part of that."""
    from sluiceway.bench.arrivals import TraceFault, read_trace  # noqa: PLC0415

    try:
        times_s = sorted(read_trace(path).times_s)
    except TraceFault as fault:
        fail(f"--trace: {fault}", EXIT_USAGE)
    length_s = times_s[-1] - times_s[0]
    if length_s <= 0:
        fail(f"--trace: {path} has no two arrivals at different times", EXIT_USAGE)
    window_s = min(WINDOW_S, length_s)
    counts = _counted(times_s, window_s)
    parts = _counted(times_s, length_s / HOURS)[:HOURS]
    peak_per_s = max(counts) / window_s
    return peak_per_s, [count / (length_s / HOURS) / peak_per_s for count in parts]


def _counted(times_s: Sequence[float], each_s: float) -> list[int]:
    counts = [0] * (int((times_s[-1] - times_s[0]) / each_s) + 1)
    for at_s in times_s:
        counts[int((at_s - times_s[0]) / each_s)] += 1
    return counts


def _tell(text: str) -> None:
    errors.print(text, style="dim", markup=False)


def _write_values(path: Path, profile: PipelineProfile, fleet: Fleet, scaling: Tried) -> None:
    from sluiceway_simulation.tune.files import fleet_values  # noqa: PLC0415

    text = fleet_values(profile, fleet, scaling.scaling)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", EXIT_FAILED)


def _show(profile: PipelineProfile, wanted: Wanted, found: Sequence[Fleet], scalings: Sequence[Tried]) -> None:
    from rich.table import Table  # noqa: PLC0415

    console = output()
    table = Table(
        "",
        "servers (workers x threads)",
        "cores",
        "GPUs",
        "an hour",
        "p99 ms",
        "beside servers alike",
        "beside machines alike",
    )
    table.title = f"{wanted.rate_per_s:g} images a second, 99 of 100 within {wanted.p99_ms:g} ms"
    for number, fleet in enumerate(found, 1):
        servers = [f"{fleet.orchestrators} orchestrator", *_servers(fleet)]
        table.add_row(
            str(number),
            "\n".join(servers),
            str(fleet.cores),
            str(fleet.gpus),
            f"{fleet.price:.2f}",
            f"{fleet.prediction.p99_ms:.0f}",
            f"{fleet.price / fleet.alike_price:.2f}",
            f"{fleet.price / fleet.machines_price:.2f}" if fleet.machines_price else "none is in time",
        )
    console.print(table)
    if profile.source:
        console.print(f"The profile is from {profile.source}.", markup=False)
    if profile.error is None:
        console.print("How far predictions of this profile are from real runs was not measured: tune does.")
    else:
        per_s, p99 = profile.error
        console.print(
            f"Predictions of this profile were {per_s:.0%} (images a second) and {p99:.0%} (p99) from a real run.",
            markup=False,
        )
    scaling = Table("CPU target", "stabilisation", "late in the step", "for", "core hours a day", "hours too small")
    scaling.title = "The autoscaler; the first is the one to take"
    for tried in scalings:
        scaling.add_row(
            f"{tried.scaling.target:.0%}",
            f"{tried.scaling.stabilisation_s:.0f} s",
            f"{tried.late:.1%}",
            f"{tried.settled_s:.0f} s",
            f"{tried.core_hours:.0f}",
            f"{tried.short_hours:.2f}",
        )
    console.print(scaling)


def _servers(fleet: Fleet) -> list[str]:
    return [f"{fleet.replicas[kind]} {kind} ({its.workers} x {its.threads})" for kind, its in fleet.workers.items()]
