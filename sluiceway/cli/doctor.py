"""`sluiceway doctor`: what Sluiceway sees of this machine and what it would do with it, in plain words."""

from __future__ import annotations

import os
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
    from sluiceway.client import Description
    from sluiceway.cluster import ClusterPlan

__all__ = ["doctor"]

ASK_TIMEOUT_S = 2.0
# Fast arithmetic, by what the kernel calls it, best first.
BF16 = ("amx_bf16", "avx512_bf16")


def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file to check.")] = None,
    address: Annotated[str, typer.Option("--address", help="A running cluster to ask.")] = DEFAULT_ADDRESS,
) -> None:
    """Check this machine and the configuration, and say what would run where.

    Exit code 1 if something would keep the cluster from starting.

    [dim]Example: sluiceway doctor --config sluiceway.toml[/]
    """
    require_servers("doctor")
    console = output()
    _machine(console)
    fine = _plan(console, config)
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
    bf16 = next((name for name in BF16 if name in found), None)
    arithmetic = f"bf16 in hardware ({bf16}): about twice as fast as f32" if bf16 else "no bf16 in hardware: f32"
    _line(console, "arithmetic", arithmetic)
    cuda = devices.find_cuda()
    _line(console, "GPU", f"{cuda.devices} CUDA device(s)" if cuda.devices else f"none used: {cuda.missing}")
    for package, purpose in (("openvino", "runs models on the CPU"), ("torch", "runs models on a GPU")):
        try:
            _line(console, package, f"{metadata.version(package)}, {purpose}")
        except metadata.PackageNotFoundError:
            _line(console, package, f"not installed ({purpose})")
    console.print()


def _plan(console: Console, config: Path | None) -> bool:
    from sluiceway_runtime.errors import StartupError  # noqa: PLC0415

    from sluiceway.cluster import plan_cluster  # noqa: PLC0415

    console.print("[bold]What `sluiceway up` would start here[/]")
    try:
        plan = plan_cluster(config, os.environ, free_ports=False)
        _stages(console, plan)
    except StartupError as error:
        for fault in str(error).splitlines():
            _line(console, "fault", fault, "red")
        return False
    _weights(console, plan)
    console.print()
    return True


def _stages(console: Console, plan: ClusterPlan) -> None:
    from sluiceway_detection.config import DetectionConfig  # noqa: PLC0415
    from sluiceway_recognition.config import RecognitionConfig  # noqa: PLC0415
    from sluiceway_runtime import cores, devices  # noqa: PLC0415
    from sluiceway_runtime.config import load_section, read_file  # noqa: PLC0415

    for server in plan.servers:
        if server.name == "orchestrator":
            _line(console, server.name, f"on {server.address}: fetches images, joins the stages")
            continue
        model = DetectionConfig if server.name == "detection" else RecognitionConfig
        tables = read_file(server.config)
        section = load_section(model, server.name, tables=tables, environment=server.environment)
        found = "cpu" if section.device == "cpu" or not devices.find_cuda().devices else section.device
        placements = cores.plan(section, devices.resolve("cpu" if found == "cpu" else section.device))
        threads = placements[0].threads
        where = f"pinned to cores {section.cores}" if section.cores else "not pinned"
        text = f"on {server.address}: {len(placements)} worker(s) on {placements[0].device}, {threads} thread(s) each"
        _line(console, server.name, f"{text}, {where}")
    if plan.division and plan.division.shared:
        _line(console, "", "both stages share all cores: there are too few to give each its own")
    caps = cores.thread_environment(1)
    _line(console, "thread caps", f"{len(caps)} variables for every worker: " + ", ".join(sorted(caps)[:4]) + " …")


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
