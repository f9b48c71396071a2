"""`sluiceway run`: images in, text out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.cli.embedded import EmbeddedCluster, find_embedded
from sluiceway.cli.inputs import Input, find_inputs
from sluiceway.cli.report import Report
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_USAGE, errors, fail, image_progress, widen_stdout
from sluiceway.client import AsyncClient, Options, Priority, Result, Source, Tls

__all__ = ["run"]


class PriorityName(StrEnum):
    """Spelling on the command line."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


@dataclass(frozen=True)
class Target:
    """Which cluster to use: a running one, or without an address one of its own, by plan."""

    address: str | None
    plan: EmbeddedCluster | None
    token: str | None
    tls: Tls | None
    show_logs: bool


@dataclass(frozen=True)
class Job:
    """What to process, and how."""

    inputs: Sequence[Input]
    options: Options
    in_flight: int
    pipeline: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Image files, folders of images, URLs, api:NAME?key=value, or - for stdin."
        ),
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write annotated pictures here.")] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Use this running cluster instead of starting one."),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", metavar="NAME", help="Steps to run; default: the cluster's own choice.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="For the pipeline's calls of APIs; may be repeated."),
    ] = None,
    conf: Annotated[float | None, typer.Option("--conf", help="Least confidence of a region, above 0 to 1.")] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="Overlap above which one of two regions goes.")] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B", help="Keep only these detection classes.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option("--max-detections", min=1, help="At most this many regions.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Longer side that the detector sees.")
    ] = None,
    detect_only: Annotated[bool, typer.Option("--detect-only", help="Find regions and read nothing.")] = False,
    words: Annotated[bool, typer.Option("--words", help="With --json: where each word of a text lies, too.")] = False,
    priority: Annotated[PriorityName, typer.Option("--priority", help="How urgent it is.")] = PriorityName.NORMAL,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Images on their way at a time.")] = 16,
    config: Annotated[
        Path | None,
        typer.Option("--config", exists=True, dir_okay=False, help="Configuration of the cluster that is started."),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", envvar="SLUICEWAY_TOKEN", help="Token of a running cluster.")
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt the connection; trusts the system's authorities.")
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", exists=True, dir_okay=False, help="Authorities to trust instead (PEM); implies --tls."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the started servers log.")] = False,
) -> None:
    """Find and read the text in images, or whatever the pipeline says.

    Without --address, the cluster is started for this run and stopped after it.

    Exit codes: 0 all images were processed, 1 some failed or their pictures could not be written, 2 wrong usage.

    [dim]Examples:[/]

    [dim]sluiceway run photo.jpg page.png --out annotated[/]

    [dim]sluiceway run scans/ --json > results.ndjson[/]

    [dim]sluiceway run https://example.org/sign.jpg --address localhost:50051[/]
    """
    for name, value in (("--conf", conf), ("--iou", iou)):
        if value is not None and not 0 < value <= 1:
            fail(f"{name} must be above 0 and at most 1, not {value:g}", EXIT_USAGE)
    options = Options(
        confidence=conf,
        iou=iou,
        classes=tuple(name.strip() for name in classes.split(",") if name.strip()) if classes else (),
        max_detections=max_detections,
        image_size=image_size,
        priority=Priority(priority.value),
        return_images=out is not None,
        detect_only=detect_only,
        words=words or None,
    )
    params = _params(param or ())
    inputs = find_inputs(sources)
    if out:
        _make_folder(out)
    widen_stdout(data=json)
    report = Report(as_json=json, out=out, inputs=inputs)
    # Before there is a loop, which would hear an interrupt only after the last download.
    plan = None if address else find_embedded("run without --address", config)
    if plan is not None and pipeline is not None and pipeline not in plan.pipelines:
        known = ", ".join(plan.pipelines)
        fail(f"--pipeline: no pipeline is called {pipeline!r}; the configuration has {known}", EXIT_USAGE)
    target = Target(address, plan, token, Tls(ca=ca) if tls or ca else None, verbose)
    raise typer.Exit(asyncio.run(_run(Job(inputs, options, in_flight, pipeline, params), target, report)))


def _params(arguments: Sequence[str]) -> dict[str, str]:
    params = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            fail(f"--param is of the form KEY=VALUE, not {argument}", EXIT_USAGE)
        params[name] = value
    return params


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot make the folder {out}: {error.strerror}", EXIT_USAGE)


async def _run(job: Job, target: Target, report: Report) -> int:
    stop_on_signals()
    try:
        async with _cluster(target) as (address, tls):
            await _process(job, report, AsyncClient(address, token=target.token, tls=tls))
    except asyncio.CancelledError:
        errors.print("stopped")
        return 130
    report.close()
    return EXIT_FAILED if report.failed or report.unwritten else 0


@contextlib.asynccontextmanager
async def _cluster(target: Target) -> AsyncIterator[tuple[str, Tls | None]]:
    """Give the address of the cluster to use, and how to encrypt; one that is started here is stopped on leaving."""
    if target.address:
        yield target.address, target.tls
        return
    plan = target.plan
    assert plan is not None
    async with plan.running(show_logs=target.show_logs):
        yield plan.address, target.tls or (Tls(ca=plan.ca) if plan.encrypted else None)


async def _process(job: Job, report: Report, client: AsyncClient) -> None:
    async with client:
        with image_progress(len(job.inputs), report.console) as progress:
            sources = (Source(item.source, params=job.params) for item in job.inputs)
            results = client.process_many(sources, job.options, pipeline=job.pipeline, in_flight=job.in_flight)
            async with contextlib.aclosing(results):
                names = iter(job.inputs)
                async for result in results:
                    item = next(names)
                    named: Result = replace(result, source=item.name)
                    # Drawing takes longer than a round trip; results go on arriving meanwhile.
                    await asyncio.to_thread(report.add, named, item)
                    progress.advance(progress.task_ids[0])
