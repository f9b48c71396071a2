"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ConfigOption", "ModelOption", "SetOption", "WorkersOption"]

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
