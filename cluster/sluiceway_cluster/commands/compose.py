"""`sluiceway compose`: the compose override that serves the stages of a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.options import ConfigOption
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_USAGE, errors, fail

__all__ = ["compose"]


def compose(
    config: ConfigOption = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write it here; default: stdout.")] = None,
) -> None:
    """Write what docker-compose.yml lacks for the named stages of a configuration: a service for each.

    Run it where docker-compose.yml is: paths in the override are relative to that folder.

    [dim]Example: sluiceway compose --to stages.yml, then: docker compose -f docker-compose.yml -f stages.yml up[/]
    """
    require_servers("compose")
    from sluiceway_cluster.compose import write_override  # noqa: PLC0415 - not there in a client-only installation

    file = config or Path("sluiceway.toml")
    if not file.is_file():
        fail("there is no sluiceway.toml here; name the configuration with --config", EXIT_USAGE)
    text = write_override(file, os.environ, folder=Path.cwd())
    if to is None:
        typer.echo(text, nl=False)
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {to}: {error.strerror}", EXIT_USAGE)
    errors.print(f"start it with: docker compose -f docker-compose.yml -f {to} up", style="dim", markup=False)
