"""`sluiceway serve`: one server in the foreground, as containers and service managers want it."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.options import ConfigOption
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_USAGE, fail

__all__ = ["serve"]


class ServerName(StrEnum):
    """The servers that every installation has."""

    DETECTION = "detection"
    RECOGNITION = "recognition"
    ORCHESTRATOR = "orchestrator"


def serve(
    server: Annotated[
        ServerName | None, typer.Argument(help="Which; a stage of your own is named by --stage.", show_default=False)
    ] = None,
    *,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="NAME", help=r"Serve \[stages.NAME] of the configuration.")
    ] = None,
    config: ConfigOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one key of the section; may be repeated."),
    ] = None,
) -> None:
    """Run one server in the foreground (for containers and service managers; `up` runs them all).

    detection finds regions in images: gRPC on port 50052, health and metrics on 9052.
    recognition reads the regions: gRPC on port 50053, health and metrics on 9053.
    orchestrator joins the stages and talks to clients: gRPC on port 50051, health and metrics on 9051.

    [dim]Examples:[/]

    [dim]sluiceway serve detection --set workers=4[/]

    [dim]sluiceway serve --stage vehicles --config sluiceway.toml[/]
    """
    require_servers("serve")
    if server is None and stage is None:
        fail(f"name a server ({', '.join(ServerName)}), or a stage with --stage NAME", EXIT_USAGE)
    command = [sys.executable, "-m", *_program(server, stage, config)]
    if config:
        command += ["--config", str(config)]
    for setting in settings or ():
        command += ["--set", setting]
    # Become the server: one process less to pass signals on, and the exit code is the server's.
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def _program(server: ServerName | None, stage: str | None, config: Path | None) -> list[str]:
    """Name the module to run, and the stage if it is not the one that it serves by default."""
    if stage is None:
        return [f"sluiceway_{server}"]
    from sluiceway_runtime.config import load_stages, read_file  # noqa: PLC0415 - not there for a client alone

    stages = load_stages(read_file(config), os.environ)
    if stage not in stages:
        fail(f"stages.{stage}: is not configured; there are {', '.join(stages)}", EXIT_USAGE)
    kind = stages[stage].kind
    if server is not None and server != kind:
        fail(f"{stages[stage].section}.kind: is {kind}, and not {server}", EXIT_USAGE)
    return [f"sluiceway_{kind}", "--stage", stage]
