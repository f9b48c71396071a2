"""`sluiceway top`: what limits a cluster now, and its stages and replicas live."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from io import StringIO
from typing import Annotated

import typer
from rich.console import Console

from sluiceway.cli.options import CaOption, CertificateOption, KeyOption, TlsOption, TokenOption, tls_of
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.streams import require_stdout
from sluiceway.cli.terminal import EXIT_USAGE, fail, output, widen_stdout
from sluiceway.cli.waterfall import print_story
from sluiceway.client import AsyncClient
from sluiceway.figures import ClusterFigures
from sluiceway.installation import install_command
from sluiceway.top.plain import to_json, to_text

__all__ = ["explaining", "top"]

# Where stdout is no terminal.
PLAIN_WIDTH = 120
NARROWEST = 60


def top(
    address: Annotated[
        str | None,
        typer.Option("--address", envvar="SLUICEWAY_ADDRESS", help="Orchestrator to ask; default: localhost:50051."),
    ] = None,
    *,
    interval: Annotated[
        float, typer.Option("--interval", min=0.2, max=60.0, metavar="S", help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look as text and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one look as one JSON object and exit.")] = False,
    token: TokenOption = None,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertificateOption = None,
    key: KeyOption = None,
) -> None:
    r"""Show live what limits a cluster, and how its stages and replicas do.

    Keys: s sorts, / filters, enter opens a replica, e tells the story of a request, space stands still, q leaves. The
    figures come from the orchestrator, which asks the stages; while nobody watches, nobody is asked.

    Exit codes: 0 all is well, 1 the cluster could not be reached, 2 wrong usage, 130 interrupted.

    [dim]Examples:[/]

    [dim]sluiceway top[/]

    [dim]sluiceway top --address vision.example.org:50051 --tls[/]

    [dim]sluiceway top --json | jq '.limits\[0]'[/]
    """
    encryption = tls_of(tls=tls, ca=ca, cert=cert, key=key)

    def connect() -> AsyncClient:
        return AsyncClient(address, tls=encryption, token=token)

    if json or once or not sys.stdout.isatty():
        require_stdout()
        widen_stdout(data=json)
        figures = asyncio.run(_look(connect, interval))
        text = to_json(figures) if json else to_text(figures, max(NARROWEST, _width()))
        output().print(text, markup=False, soft_wrap=True)
        return
    if importlib.util.find_spec("textual") is None:
        fail(f"top needs textual: {install_command('top')}; --once and --json do without", EXIT_USAGE)
    raise typer.Exit(asyncio.run(_watch(connect, interval)))


async def _look(connect: Callable[[], AsyncClient], interval_s: float) -> ClusterFigures:
    stop_on_signals()
    async with connect() as client, aclosing(client.watch(interval_s)) as all_figures:
        return await anext(all_figures)


async def _watch(connect: Callable[[], AsyncClient], interval_s: float) -> int:
    from sluiceway.top.app import TopApp  # noqa: PLC0415 - only who looks live needs Textual

    async with connect() as client:
        app = TopApp(client, interval_s=interval_s, explain=explaining(client))
        code = await app.run_async()
        if app.fault is not None:
            raise app.fault
        return code or 0


def explaining(client: AsyncClient) -> Callable[[str, int], Awaitable[str]]:
    """How the story of a request is told on a screen of a width: with the colours of a terminal, as ANSI has them."""

    async def tell(request_id: str, width: int) -> str:
        found = await client.explain(request_id)
        if not found.found:
            return f"no server remembers a request {request_id}"
        told = StringIO()
        print_story(Console(file=told, width=width, force_terminal=True), found)
        return told.getvalue()

    return tell


def _width() -> int:
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH
