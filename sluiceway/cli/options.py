"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.client.options import Scale, Tls

__all__ = [
    "CaOption",
    "CertificateOption",
    "ConfigOption",
    "KeyOption",
    "ModelOption",
    "SetOption",
    "TlsOption",
    "TokenOption",
    "WorkersOption",
    "parse_scale",
    "tls_of",
]

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

# Of a connection to a cluster that runs.
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="SLUICEWAY_TOKEN", help="Token of a running cluster.")
]
TlsOption = Annotated[bool, typer.Option("--tls", help="Encrypt the connection; trusts the system's authorities.")]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", exists=True, dir_okay=False, help="Authorities to trust instead (PEM); implies --tls."),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--cert", exists=True, dir_okay=False, help="Certificate to show (PEM); implies --tls."),
]
KeyOption = Annotated[Path | None, typer.Option("--key", exists=True, dir_okay=False, help="Its private key (PEM).")]


def tls_of(*, tls: bool, ca: Path | None, cert: Path | None = None, key: Path | None = None) -> Tls | None:
    """How to encrypt, by the options of a connection; None for a connection in the clear."""
    if (cert is None) != (key is None):
        fail("--cert and --key belong together", EXIT_USAGE)
    return Tls(ca=ca, certificate=cert, key=key) if tls or ca or cert else None


_WORDS: Mapping[str, Scale] = {"auto": "auto", "fast": "fast"}


def parse_scale(text: str | None) -> Scale | None:
    """What was typed for `--scale`; which numbers it takes, the server says."""
    if text is None:
        return None
    try:
        return _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        fail(f"--scale must be auto, fast or a number, not {text}", EXIT_USAGE)
