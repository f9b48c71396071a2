"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.client.options import Scale

__all__ = ["ConfigOption", "ModelOption", "SetOption", "WorkersOption", "parse_scale"]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        exists=True,
        dir_okay=False,
        help="Configuration file; default: sluiceway.toml here, if there is one.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key of the configuration; may be repeated."),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Weights to serve (`sluiceway models list`); may be repeated."),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes of every stage.")]


_WORDS: Mapping[str, Scale] = {"auto": "auto", "fast": "fast"}


def parse_scale(text: str | None) -> Scale | None:
    """What was typed for `--scale`; which numbers it takes, the server says."""
    if text is None:
        return None
    try:
        return _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        fail(f"--scale must be auto, fast or a number, not {text}", EXIT_USAGE)
