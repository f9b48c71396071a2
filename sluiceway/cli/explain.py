"""`sluiceway explain`: the story of one of the latest requests."""

from __future__ import annotations

import asyncio
import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sluiceway.cli.options import CaOption, CertificateOption, KeyOption, TlsOption, TokenOption, tls_of
from sluiceway.cli.streams import require_stdout
from sluiceway.cli.terminal import EXIT_USAGE, errors, fail, output
from sluiceway.cli.waterfall import print_story
from sluiceway.client import EXPLAIN_TIMEOUT_S, AsyncClient, Explanation, Tls, critical_path
from sluiceway.formats import to_speedscope, to_trace_events

__all__ = ["explain"]


class ExportName(StrEnum):
    """Spelling on the command line."""

    PERFETTO = "perfetto"
    SPEEDSCOPE = "speedscope"


def explain(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="Its id, as results, errors and log lines have it.")
    ],
    *,
    address: Annotated[
        str,
        typer.Option("--address", metavar="HOST:PORT", envvar="SLUICEWAY_ADDRESS", help="The cluster."),
    ] = "localhost:50051",
    json: Annotated[bool, typer.Option("--json", help="The story as JSON on stdout, and nothing else.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every span, however short.")] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", dir_okay=False, help="Write it here for a viewer, and print nothing."),
    ] = None,
    export_format: Annotated[
        ExportName | None,
        typer.Option("--export-format", help="The viewer; default: speedscope for *.speedscope.json, else Perfetto."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.01, help="For all servers to answer.")
    ] = EXPLAIN_TIMEOUT_S,
    token: TokenOption = None,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertificateOption = None,
    key: KeyOption = None,
) -> None:
    """Tell the story of one of the latest 10,000 requests: where it waited, with whom it was computed, why it failed.

    Every orchestrator that the address stands for is asked, and each asks the replicas that took part. Stories hold no
    image and no text. docs/explain.md says what each part means.

    Exit codes: 0 told, 1 no server remembers the request or none answers, 2 wrong usage.

    [dim]Examples:[/]

    [dim]sluiceway explain 8f14e45fceea167a[/]

    [dim]sluiceway explain 8f14e45fceea167a --export story.json   (open it in ui.perfetto.dev)[/]
    """
    if export_format is not None and export is None:
        fail("--export-format is for --export FILE", EXIT_USAGE)
    if export is None:
        require_stdout()
    encrypted = tls_of(tls=tls, ca=ca, cert=cert, key=key)
    found = asyncio.run(_ask(request, address, token, encrypted, timeout))
    if not found.found:
        _say_unknown(found)
        raise typer.Exit(1)
    if export is not None:
        _export(found, export, export_format)
    elif json:
        typer.echo(jsonlib.dumps(found.to_dict() | {"critical_paths": _paths(found)}, ensure_ascii=False))
    else:
        print_story(output(), found, whole=every)


def _paths(found: Explanation) -> list[dict[str, Any]]:
    """What each source of each job waited for, of those that have ended."""
    return [
        critical_path(found, job, source.source, server.server).to_dict() | {"job_id": job.job_id}
        for server, job in found.jobs
        if not job.running
        for source in job.sources
    ]


async def _ask(request: str, address: str, token: str | None, tls: Tls | None, timeout_s: float) -> Explanation:
    async with AsyncClient(address, token=token, tls=tls) as client:
        return await client.explain(request, timeout_s=timeout_s)


def _say_unknown(found: Explanation) -> None:
    count = sum(server.error is None for server in found.servers)
    who = "the server remembers" if count == 1 else f"none of {count} servers remembers"
    negation = "no request" if count == 1 else "a request"
    reach = max((server.remembers_ms for server in found.servers), default=0.0)
    since = f"; they go back {reach / 1000:.0f} s" if reach else ""
    errors.print(f"sluiceway: {who} {negation} {found.request_id}{since}", style="red", markup=False, soft_wrap=True)
    for server in found.servers:
        if server.error is not None:
            text = f"{server.server} at {server.address} could not be asked: {server.error.message}"
            errors.print(text, style="yellow", markup=False, soft_wrap=True)


def _export(found: Explanation, path: Path, wanted: ExportName | None) -> None:
    if wanted is None:
        wanted = ExportName.SPEEDSCOPE if path.name.endswith(".speedscope.json") else ExportName.PERFETTO
    text = to_speedscope(found) if wanted is ExportName.SPEEDSCOPE else to_trace_events(found)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    viewer = "https://www.speedscope.app" if wanted is ExportName.SPEEDSCOPE else "https://ui.perfetto.dev"
    errors.print(f"{path}: open it in {viewer}", markup=False, soft_wrap=True)
