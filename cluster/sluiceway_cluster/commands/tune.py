"""`sluiceway tune`: the setting of this machine for a goal, found in a model that is measured here, and proved."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluiceway.cli.embedded import Changes
from sluiceway.cli.inputs import find_inputs
from sluiceway.cli.options import ConfigOption
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.streams import require_stdout
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors, fail, output
from sluiceway.client.sources import Content
from sluiceway_cluster.commands.units import read_p99_ms, read_rate

if TYPE_CHECKING:
    from sluiceway_simulation.profiles.model import Workers
    from sluiceway_simulation.profiles.profile import PipelineProfile
    from sluiceway_simulation.tune.climb import Point, Step
    from sluiceway_simulation.tune.goal import Goal

    from sluiceway_cluster.tuning.measuring import MeasuredCluster, Stretch
    from sluiceway_cluster.tuning.profiling import Start

__all__ = ["tune"]

PROOF_S = 8.0
KINDS = ("detection", "recognition")


def tune(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images like those that you will send.")],
    *,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="R", help="Goal: so many images a second, such as 50/s.")
    ] = None,
    p99: Annotated[
        str | None, typer.Option("--p99", metavar="MS", help="With --rate: 99 of 100 within this, such as 200ms.")
    ] = None,
    max_throughput: Annotated[
        bool, typer.Option("--max-throughput", help="Goal: as many images a second as there can be; the default.")
    ] = False,
    least_memory: Annotated[
        bool, typer.Option("--least-memory", help="Goal: the least memory that gives 80% of the best throughput.")
    ] = False,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where what was found is written.")] = Path("tuned"),
    profile: Annotated[
        Path | None,
        typer.Option("--profile", exists=True, dir_okay=False, help="Take this profile, of an earlier tune here."),
    ] = None,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the started servers log.")] = False,
) -> None:
    """Find workers and threads of each stage for this machine and your images.

    One worker of each stage is measured with every number of threads. A model of the pipeline is made of that, and
    climbed from the smallest setting upward; each step is shown with what it gains. What it recommends is then run, and
    the defaults beside it. Arithmetic (`precision`) is the servers' own choice, which they try at every start.

    Written to --to: profile.json, sluiceway.toml, compose.tuned.yml, values.tuned.yaml and frontier.svg.

    Exit codes: 0 the goal is met, 1 it is not, 2 wrong usage.

    [dim]Examples:[/]

    [dim]sluiceway tune scans/ --max-throughput[/]

    [dim]sluiceway tune photo.jpg --rate 10/s --p99 300ms --to tuned[/]
    """
    require_servers("tune")
    from sluiceway_simulation.tune.goal import Aim, Goal  # noqa: PLC0415 - not there in a client-only installation

    if sum((rate is not None, max_throughput, least_memory)) > 1:
        fail("one of --rate, --max-throughput and --least-memory is the goal", EXIT_USAGE)
    if p99 is not None and rate is None:
        fail("--p99 belongs to --rate: at which rate is it to be kept?", EXIT_USAGE)
    aim = Aim.RATE if rate else Aim.LEAST_MEMORY if least_memory else Aim.MAX_THROUGHPUT
    goal = Goal(aim, read_rate(rate) if rate else None, read_p99_ms(p99) if p99 else None)
    require_stdout()
    inputs = [item.source for item in find_inputs(sources)]
    run = _Run(goal, inputs, config, verbose=verbose)
    run.check()
    raise typer.Exit(asyncio.run(_tune(run, to, profile, as_json=json)))


@dataclass(frozen=True)
class _Run:
    goal: Goal
    sources: Sequence[Content]
    config: Path | None
    verbose: bool

    def check(self) -> None:
        """Say at once what cannot be tuned, and bring in the weights."""
        from sluiceway_cluster.commands.embedded import plan_and_pull  # noqa: PLC0415

        plan = plan_and_pull("tune", self.config, Changes(), free_ports=True)
        if plan.encrypted:
            fail("tune measures clusters in the clear: leave [security] out for it", EXIT_USAGE)
        if {stage.name for stage in plan.stages} != set(KINDS):
            names = ", ".join(stage.name for stage in plan.stages)
            fail(f"tune knows pipelines of the stages detection and recognition; these are {names}", EXIT_USAGE)

    @asynccontextmanager
    async def start(self, workers: Mapping[str, Workers] | None) -> AsyncIterator[MeasuredCluster]:
        """The cluster of a setting; None is that of the configuration as it is."""
        from sluiceway_cluster.commands.embedded import embedded_cluster, plan_and_pull  # noqa: PLC0415
        from sluiceway_cluster.tuning.measuring import measured, settings_of  # noqa: PLC0415

        changes = Changes(settings_of(workers) if workers else ())
        plan = plan_and_pull("tune", self.config, changes, free_ports=True)
        async with (
            embedded_cluster(plan, show_logs=self.verbose),
            measured(plan, self.sources, pipeline=None) as cluster,
        ):
            yield cluster

    async def prove(self, workers: Mapping[str, Workers] | None, in_flight: int) -> Stretch:
        """Run a setting as the goal wants it."""
        async with self.start(workers) as cluster:
            if self.goal.rate_per_s is None:
                return await cluster.closed(in_flight, PROOF_S)
            return await cluster.open(self.goal.rate_per_s, PROOF_S)


async def _tune(run: _Run, to: Path, known: Path | None, *, as_json: bool) -> int:
    from sluiceway_simulation.profiles.profile import PipelineProfile, ProfileFault  # noqa: PLC0415
    from sluiceway_simulation.tune.climb import climb, recommended  # noqa: PLC0415

    from sluiceway_cluster.tuning.profiling import measure_profile  # noqa: PLC0415

    stop_on_signals()
    try:
        if known is not None:
            profile = PipelineProfile.read(known)
        else:
            start: Start = run.start
            profile = await measure_profile(start, "read", _tell)
        _tell("climbing from the smallest setting, in the model")
        steps, points = await asyncio.to_thread(climb, profile, run.goal)
        chosen = recommended(run.goal, steps, points)
        callers = 2 * sum(its.workers for _, its in chosen.setting)
        _tell("running what is recommended, and the configuration as it is")
        proof = await run.prove(dict(chosen.setting), callers)
        before = await run.prove(None, callers)
    except ProfileFault as error:
        fail(str(error), EXIT_USAGE)
    except asyncio.CancelledError:
        errors.print("stopped")
        return 130
    profile = replace(profile, error=_error(chosen, proof))
    found = _Found(profile, steps, points, chosen, proof, before)
    try:
        written = _write(to, run, found)
    except OSError as error:
        fail(f"cannot write to {to}: {error.strerror}", EXIT_FAILED)
    if as_json:
        sys.stdout.write(json_module.dumps(found.to_dict(run.goal)) + "\n")
    else:
        _show(found, run.goal)
        errors.print(f"written: {', '.join(map(str, written))}", markup=False, soft_wrap=True, style="dim")
    return 0 if found.goal_met(run.goal) else EXIT_FAILED


def _error(chosen: Point, proof: Stretch) -> tuple[float, float]:
    """How far the prediction is from the real run, in images a second and in the 99th percentile, as parts of that."""
    predicted = chosen.prediction
    per_s, p99_ms = proof.per_s, proof.p99_ms
    return (
        abs(predicted.per_s - per_s) / per_s if per_s else 1.0,
        abs(predicted.p99_ms - p99_ms) / p99_ms,
    )


@dataclass(frozen=True)
class _Found:
    profile: PipelineProfile
    steps: Sequence[Step]
    points: Sequence[Point]
    chosen: Point
    proof: Stretch
    before: Stretch

    def goal_met(self, goal: Goal) -> bool:
        """In the real run."""
        if goal.rate_per_s is None:
            return self.proof.per_s > 0
        in_time = goal.p99_ms is None or self.proof.p99_ms <= goal.p99_ms
        return in_time and self.proof.per_s >= 0.95 * goal.rate_per_s

    def to_dict(self, goal: Goal) -> dict[str, object]:
        """Plain data: the output of --json."""
        predicted = self.chosen.prediction
        return {
            "goal": str(goal),
            "goal_met": self.goal_met(goal),
            "setting": {kind: {"workers": its.workers, "threads": its.threads} for kind, its in self.chosen.setting},
            "predicted": {"per_s": predicted.per_s, "p99_ms": predicted.p99_ms},
            "measured": {"per_s": self.proof.per_s, "p99_ms": self.proof.p99_ms},
            "before": {"per_s": self.before.per_s, "p99_ms": self.before.p99_ms},
            "steps": [
                {"what": step.what, "per_s": step.point.prediction.per_s, "p99_ms": step.point.prediction.p99_ms}
                for step in self.steps
            ],
        }


def _tell(text: str) -> None:
    errors.print(text, style="dim", markup=False)


def _write(to: Path, run: _Run, found: _Found) -> list[Path]:
    from sluiceway_simulation.tune.files import compose_override, helm_values  # noqa: PLC0415
    from sluiceway_simulation.tune.picture import to_svg  # noqa: PLC0415

    from sluiceway_cluster.commands.changes import as_variables  # noqa: PLC0415
    from sluiceway_cluster.tuning.measuring import settings_of, tuned_toml  # noqa: PLC0415

    workers = dict(found.chosen.setting)
    variables = as_variables(Changes(settings_of(workers)), run.config, os.environ)
    texts = {
        "sluiceway.toml": tuned_toml(run.config, variables),
        "compose.tuned.yml": compose_override(found.profile, workers),
        "values.tuned.yaml": helm_values(found.profile, workers),
        "frontier.svg": to_svg(found.points, found.steps, found.chosen, f"Settings for {run.goal}"),
    }
    to.mkdir(parents=True, exist_ok=True)
    found.profile.write(to / "profile.json")
    for name, text in texts.items():
        (to / name).write_text(text, encoding="utf-8")
    return [to / "profile.json", *(to / name for name in texts)]


def _show(found: _Found, goal: Goal) -> None:
    from rich.table import Table  # noqa: PLC0415
    from sluiceway_simulation.tune.picture import frontier, in_words  # noqa: PLC0415

    console = output()
    table = Table("step", "images/s", "p99 ms", "worker MB", "gains", title=f"The way up, for {goal}")
    for step in found.steps:
        predicted = step.point.prediction
        gains = f"{step.gain:+.1%}" if step.gain else ""
        table.add_row(
            step.what, f"{predicted.per_s:.1f}", f"{predicted.p99_ms:.0f}", f"{step.point.memory_mb:.0f}", gains
        )
    console.print(table)
    console.print("Nothing else gives more for its memory than (workers x threads):", markup=False)
    for point in frontier(found.points):
        console.print(
            f"  {in_words(point.setting)}: {point.prediction.per_s:.1f} images/s, "
            f"p99 {point.prediction.p99_ms:.0f} ms, {point.memory_mb:.0f} MB",
            markup=False,
        )
    predicted = found.chosen.prediction
    console.print(f"Recommended: {in_words(found.chosen.setting)}", style="bold", markup=False)
    proof = Table("", "images/s", "p99 ms", title="Run for real")
    proof.add_row("predicted", f"{predicted.per_s:.1f}", f"{predicted.p99_ms:.0f}")
    proof.add_row("measured", f"{found.proof.per_s:.1f}", f"{found.proof.p99_ms:.0f}")
    proof.add_row("the configuration as it is", f"{found.before.per_s:.1f}", f"{found.before.p99_ms:.0f}")
    console.print(proof)
    if found.before.per_s > found.proof.per_s * 1.05 and goal.rate_per_s is None:
        console.print("The configuration as it is does more in this run: keep it.", style="yellow")
