"""Commands of other packages, found by entry point: whoever installs servers gets the commands about servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup

from sluiceway.cli.requirements import has_servers, missing_servers

__all__ = ["CommandGroup"]

# Name of a command to a function or a Typer application. Its module is loaded for every `--help`: it imports what it
# needs where it needs it.
GROUP = "sluiceway.commands"


@cache
def _registered() -> Mapping[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


class CommandGroup(TyperGroup):
    """Its own commands, then those that are registered; without the servers' dependencies the latter are not listed."""

    # Typer's releases differ in whose click they stand on, hence no types of it.
    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands that can run here."""
        own = super().list_commands(ctx)
        return [*own, *sorted(set(_registered()) - set(own))] if has_servers() else own

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one. Asked for one that cannot run here, it says what to install."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        entry = _registered().get(cmd_name)
        return _load(entry) if entry else None


def _load(entry: metadata.EntryPoint) -> Any:
    try:
        found = entry.load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sluiceway."):
            raise
        missing_servers(entry.name, error.name)
    if isinstance(found, typer.Typer):
        # Also where it has one command only, which Typer would take for the whole.
        command: Any = typer.main.get_group(found)
    else:
        # Ways of showing things are the application's, also for what is added to it.
        app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False)
        app.command(entry.name)(found)
        command = typer.main.get_command(app)
    command.name = entry.name
    return command
