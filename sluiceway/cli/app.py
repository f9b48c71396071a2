"""All commands, and how they end: a clear line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from sluiceway.cli import bench, run, top
from sluiceway.cli.commands import CommandGroup
from sluiceway.cli.streams import StreamFault, claim_streams, finish_streams
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STREAMS, EXIT_USAGE, errors
from sluiceway.errors import SluicewayError

__all__ = ["app", "main"]

app = typer.Typer(
    name="sluiceway",
    cls=CommandGroup,
    help="Read the text in images: a detector finds regions, a recogniser reads them, each in its own server.",
    epilog="Start with: sluiceway run photo.jpg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", no_args_is_help=True)(run.run)
app.command("bench", no_args_is_help=True)(bench.bench)
app.command("top")(top.top)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluiceway {metadata.version('sluiceway')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("version")
def version() -> None:
    """Print the version of Sluiceway and of what it stands on."""
    typer.echo(f"sluiceway {metadata.version('sluiceway')}")
    for package in ("grpcio", "protobuf", "openvino", "onnxruntime", "torch"):
        try:
            typer.echo(f"  {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            typer.echo(f"  {package} (not installed)")


def main() -> None:
    """Run the command and exit."""
    claim_streams()
    code: int | str | None
    try:
        # Exits by itself: 0, what a command asks for with `typer.Exit`, or 2 with a line on wrong usage.
        app()
        code = 0
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = _explain(error)
    if code == EXIT_INTERRUPTED:
        # Whoever reads the results may have stopped reading; what was written whole is there.
        os._exit(code)
    try:
        finish_streams()
    except StreamFault as fault:
        code = _explain(fault)
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Turn what a command raised into a line; a bug keeps its traceback."""
    if isinstance(error, StreamFault):
        if not error.quiet:
            _say(error)
        return EXIT_STREAMS
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, SluicewayError) or kinds & {"StartupError", "ClusterError"}:
        _say(error)
        return EXIT_USAGE if kinds & {"ConfigurationError", "InvalidOption"} else EXIT_FAILED
    raise error


def _say(error: Exception) -> None:
    errors.print(f"sluiceway: {error}", style="red", markup=False, soft_wrap=True)
