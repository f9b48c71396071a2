"""`sluiceway config`: the configuration that is in force, in full."""

from __future__ import annotations

import os

import typer

from sluiceway.cli.embedded import Changes
from sluiceway.cli.options import ConfigOption, ModelOption, SetOption, WorkersOption
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import widen_stdout

__all__ = ["config_app"]

config_app = typer.Typer(help="The configuration that is in force.", no_args_is_help=True)


@config_app.callback()
def _group() -> None:
    """The configuration that is in force."""


@config_app.command("show")
def show(
    config: ConfigOption = None,
    settings: SetOption = None,
    model: ModelOption = None,
    workers: WorkersOption = None,
) -> None:
    """Print every key with its value, what it means, and whether the file or the environment says it.

    What is printed is a configuration that says the same, with all defaults as comments. It has no secrets, only the
    names of their variables.

    [dim]Example: sluiceway config show > sluiceway.toml[/]
    """
    require_servers("config show")
    from sluiceway_runtime.config import read_file, require_known_variables  # noqa: PLC0415 - not there for a client

    from sluiceway_cluster.commands.changes import as_variables  # noqa: PLC0415
    from sluiceway_cluster.settings import as_toml  # noqa: PLC0415

    # The shell has emptied the file that `config show > sluiceway.toml` makes; an empty one says nothing.
    tables = read_file(config)
    changes = Changes(tuple(settings or ()), tuple(model or ()), workers)
    variables = {**os.environ, **as_variables(changes, config, os.environ)}
    require_known_variables(variables, tables)
    widen_stdout(data=True)
    typer.echo(as_toml(tables, variables), nl=False)
