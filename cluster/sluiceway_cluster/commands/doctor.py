"""`sluiceway doctor`: what Sluiceway sees of this machine and what it would do with it, in plain words."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_FAILED, output
from sluiceway.client import DEFAULT_ADDRESS, Client, RetryPolicy
from sluiceway.errors import SluicewayError

if TYPE_CHECKING:
    from sluiceway_runtime.config import StageConfig
    from sluiceway_runtime.cores import CpuFacts

    from sluiceway.client import Description
    from sluiceway_cluster import ClusterPlan
    from sluiceway_cluster.stages import ConfiguredStage

__all__ = ["doctor"]

ASK_TIMEOUT_S = 2.0
# What multiplies bytes fast, by what the kernel calls it.
INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")


def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", exists=True, dir_okay=False, help="Configuration file to check.")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", envvar="SLUICEWAY_ADDRESS", help="A running cluster to ask.")
    ] = DEFAULT_ADDRESS,
    *,
    trial: Annotated[
        bool, typer.Option("--trial/--no-trial", help="Start one detection worker and measure the threads it runs.")
    ] = True,
) -> None:
    """Check this machine and the configuration, and say what would run where.

    Exit code 1 if something would keep the cluster from starting.

    [dim]Example: sluiceway doctor --config sluiceway.toml[/]
    """
    require_servers("doctor")
    console = output()
    _machine(console)
    fine = _plan(console, config, trial=trial)
    _running(console, address)
    raise typer.Exit(0 if fine else EXIT_FAILED)


def _line(console: Console, name: str, text: str, style: str = "") -> None:
    console.print(f"  [dim]{name:<14}[/] " + (f"[{style}]{escape(text)}[/]" if style else escape(text)), soft_wrap=True)


def _machine(console: Console) -> None:
    from sluiceway_runtime import cores, devices  # noqa: PLC0415 - not there in a client-only installation

    facts, found = cores.read_cpu_facts(), cores.isa()
    console.print("[bold]This machine[/]")
    _line(console, "cores", f"{len(facts.allowed)} usable of {len(facts.online)} ({facts.physical_cores} physical)")
    quota = "none" if facts.quota_cpus is None else f"{facts.quota_cpus:g} cores' worth of time (container limit)"
    _line(console, "CPU quota", quota)
    _line(console, "owner", _owner(facts))
    if len(facts.nodes) > 1:
        _line(console, "memory", f"{len(facts.nodes)} NUMA nodes: {', '.join(map(str, facts.nodes))}")
    _line(console, "arithmetic", _arithmetic(found))
    _line(console, "instructions", ", ".join(sorted(found)) or "none that matter here")
    cuda = devices.find_cuda()
    _line(console, "GPU", f"{cuda.devices} CUDA device(s)" if cuda.devices else f"none used: {cuda.missing}")
    for package, purpose in (("openvino", "runs models on the CPU"), ("torch", "runs models on a GPU")):
        try:
            _line(console, package, f"{metadata.version(package)}, {purpose}")
        except metadata.PackageNotFoundError:
            _line(console, package, f"not installed ({purpose})")
    console.print()


def _owner(facts: CpuFacts) -> str:
    """Who divides the cores, and so whether workers are pinned."""
    if facts.exclusive:
        return "these cores look like ours alone: a server that is started here pins its workers to them"
    if facts.quota_cpus is not None and facts.quota_cpus < len(facts.allowed):
        return "others share these cores under a quota: threads are capped and nothing is pinned"
    return "`sluiceway up` divides the cores among its servers; a server alone caps its threads and pins nothing"


def _arithmetic(found: Collection[str]) -> str:
    if "amx_bf16" in found:
        return "bf16 in hardware (amx_bf16): two to three times as fast as f32"
    int8 = any(name in found for name in INT8)
    advice = "; int8 weights (`sluiceway models calibrate`) are about twice as fast as f32" if int8 else ""
    if "avx512_bf16" in found:
        return f"bf16 without AMX (avx512_bf16), which may be slower than f32: it is tried{advice}"
    return f"no bf16 in hardware: f32{advice}"


def _plan(console: Console, config: Path | None, *, trial: bool) -> bool:
    from sluiceway_runtime.errors import StartupError  # noqa: PLC0415

    from sluiceway_cluster import plan_cluster  # noqa: PLC0415

    console.print("[bold]What `sluiceway up` would start here[/]")
    try:
        plan = plan_cluster(config, os.environ, free_ports=False)
        _servers(console, plan)
        if trial:
            for stage in plan.stages:
                _trial(console, plan, stage)
    except StartupError as error:
        for fault in str(error).splitlines():
            _line(console, "fault", fault, "red")
        return False
    _weights(console, plan)
    _pipelines(console, plan)
    console.print()
    return True


def _servers(console: Console, plan: ClusterPlan) -> None:
    from sluiceway_runtime import cores, devices  # noqa: PLC0415

    from sluiceway_cluster.scaling import AUTOMATIC_RULE, FRONTS_RULE, service_of  # noqa: PLC0415

    servers = {server.name: server for server in plan.servers}
    for stage in plan.stages:
        section = _as_started(plan, stage)
        found = "cpu" if section.device == "cpu" or not devices.find_cuda().devices else section.device
        placements = cores.plan(section, devices.resolve("cpu" if found == "cpu" else section.device))
        threads = placements[0].threads
        where = f"pinned to cores {section.cores}" if section.cores else "not pinned"
        at = servers[stage.name].address
        text = f"on {at}: {len(placements)} worker(s) on {placements[0].device}, {threads} thread(s) each"
        fronts = sum(service_of(name) == stage.name for name in servers)
        how_many = f" ({fronts} of them, {FRONTS_RULE})" if fronts > 1 else ""
        _line(console, stage.name, f"{text}, {where}{how_many}")
    count = len(plan.addresses)
    how_many = f" ({count} of them, {AUTOMATIC_RULE}; `up --scale orchestrator=N` says otherwise)" if count > 1 else ""
    _line(console, "orchestrator", f"on {', '.join(plan.addresses)}: fetches images, joins the stages{how_many}")
    if plan.division and plan.division.shared:
        which = "both stages" if len(plan.stages) == 2 else "all stages"
        _line(console, "", f"{which} share all cores: there are too few to give each its own")
    for stage in plan.unused:
        _line(console, stage.name, "not started: no pipeline uses it")


def _as_started(plan: ClusterPlan, stage: ConfiguredStage) -> StageConfig:
    """The section of a stage with the variables that its server is given."""
    from sluiceway_runtime.config import load_section, read_file  # noqa: PLC0415

    [server] = [server for server in plan.servers if server.name == stage.name]
    tables = read_file(server.config)
    return load_section(type(stage.config), stage.entry.section, tables=tables, environment=server.environment)


def _pipelines(console: Console, plan: ClusterPlan) -> None:
    from sluiceway_cluster.pipelines import steps_in_words  # noqa: PLC0415

    for pipeline in plan.pipelines:
        _line(console, "pipeline", f"{pipeline.name}: {steps_in_words(pipeline)}")


def _trial(console: Console, plan: ClusterPlan, stage: ConfiguredStage) -> None:
    """Start one worker of a detection stage as its server would, and tell what it measured of itself."""
    from sluiceway_detection.config import DetectionConfig  # noqa: PLC0415
    from sluiceway_runtime import cores, devices, weights  # noqa: PLC0415
    from sluiceway_runtime.errors import StartupError  # noqa: PLC0415

    section = _as_started(plan, stage)
    if not isinstance(section, DetectionConfig) or section.device != "cpu":
        return
    if not all(weights.is_available(name) for name in stage.weights):
        return
    [server] = [server for server in plan.servers if server.name == stage.name]
    placements = cores.plan(section, devices.resolve("cpu"))
    threads = placements[0].threads
    command = [sys.executable, "-m", "sluiceway_detection.trial", *server.arguments]
    command += ["--config", str(server.config)] if server.config else []
    done = subprocess.run(command, env=dict(server.environment), capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise StartupError(said[-1] if said else f"trying a worker ended with exit code {done.returncode}")
    status = json.loads(done.stdout)
    model, worker = status["model"], status["workers"][0]
    _line(console, stage.name, f"tried: {model['backend']}, {model['precision']} ({model['precision_reason']})")
    busy = worker["threads_busy"]
    seen = "too short to see how many were busy" if busy is None else f"{busy} busy at once while it computed"
    _line(console, "threads", f"{threads} granted to a worker, {seen}", "" if (busy or 0) <= threads else "red")
    caps = ", ".join(f"{name} {number}" for name, number in worker["thread_caps"].items())
    _line(console, "thread caps", f"as the libraries say: {caps}")
    quota = cores.read_cpu_facts().quota_cpus
    share = min(len(cores.read_cpu_facts().allowed), quota or float("inf"))
    if len(placements) * threads > math.ceil(share):
        text = f"{len(placements)} workers x {threads} threads on {share:g} cores: they take turns, answers take longer"
        _line(console, "warning", text, "yellow")


def _weights(console: Console, plan: ClusterPlan) -> None:
    from sluiceway_runtime import weights  # noqa: PLC0415

    for name in plan.weights:
        if weights.is_available(name):
            _line(console, "weights", f"{name}: here")
        else:
            _line(console, "weights", f"{name}: not here yet; pulled at the first start", "yellow")


def _running(console: Console, address: str) -> None:
    console.print(f"[bold]Running now on {escape(address)}[/]")
    try:
        with Client(address, retry=RetryPolicy(attempts=1)) as client:
            description = client.describe(timeout_s=ASK_TIMEOUT_S)
    except SluicewayError as error:
        text = "nothing: no cluster answers" if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else error.message
        _line(console, "", text)
        return
    _describe(console, description)


def _describe(console: Console, description: Description) -> None:
    _line(console, "version", description.server_version)
    for stage in description.stages:
        ready = sum(item.ready for item in stage.endpoints)
        text = f"{ready} of {len(stage.endpoints)} replica(s) ready, {stage.workers} worker(s) in each"
        _line(console, stage.name, text, "" if ready else "red")
    for item in description.models:
        text = f"{item.model.name} {item.model.version}: {item.backend}, {item.precision}, on {item.device}"
        _line(console, item.stage, text)
    # What only running stages know: a class that no stage finds, a model that none has.
    for problem in getattr(description, "problems", ()):
        _line(console, "problem", str(problem), "red")
