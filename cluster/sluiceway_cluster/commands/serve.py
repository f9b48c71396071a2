"""`sluiceway serve`: one server in the foreground, as containers and service managers want it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.options import ConfigOption
from sluiceway.cli.requirements import require_servers

__all__ = ["app"]

app = typer.Typer(
    help="Run one server in the foreground (for containers and service managers; `up` runs all three).",
    no_args_is_help=True,
)

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key of the section; may be repeated.")
]


@app.command()
def detection(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Find regions in images. gRPC on port 50052, health and metrics on 9052.

    [dim]Example: sluiceway serve detection --set workers=4[/]
    """
    _replace_process("sluiceway_detection", config, settings)


@app.command()
def recognition(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Read the regions. gRPC on port 50053, health and metrics on 9053.

    [dim]Example: sluiceway serve recognition --set device=cuda[/]
    """
    _replace_process("sluiceway_recognition", config, settings)


@app.command()
def orchestrator(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Join the stages and talk to clients. gRPC on port 50051, health and metrics on 9051.

    [dim]Example: sluiceway serve orchestrator --set detection=dns:///detection:50052[/]
    """
    _replace_process("sluiceway_orchestrator", config, settings)


def _replace_process(module: str, config: Path | None, settings: list[str] | None) -> None:
    """Become the server: one process less to pass signals on, and the exit code is the server's."""
    require_servers("serve")
    command = [sys.executable, "-m", module]
    if config:
        command += ["--config", str(config)]
    for setting in settings or ():
        command += ["--set", setting]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
