"""`sluiceway run`: images in, text out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from sluiceway.cli.documents import FormatName
from sluiceway.cli.embedded import Changes
from sluiceway.cli.inputs import Input, find_inputs
from sluiceway.cli.options import (
    CaOption,
    CertificateOption,
    KeyOption,
    ModelOption,
    SetOption,
    TlsOption,
    TokenOption,
    WorkersOption,
    parse_scale,
    tls_of,
)
from sluiceway.cli.report import Report
from sluiceway.cli.resume import done_before, left_to_do
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.streams import require_stdout
from sluiceway.cli.target import Target, find_target, parse_params
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, errors, fail, image_progress, widen_stdout
from sluiceway.cli.waiting import Waiting
from sluiceway.client import PATIENCE_S, AsyncClient, Options, Priority, Result, Source
from sluiceway.client.options import TextLayer
from sluiceway.client.threads import in_thread
from sluiceway.errors import InvalidOption, SluicewayError

__all__ = ["run"]


class PriorityName(StrEnum):
    """Spelling on the command line."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


class TextLayerName(StrEnum):
    """Spelling on the command line."""

    IGNORE = "ignore"
    PREFER = "prefer"


@dataclass(frozen=True)
class Job:
    """What to process, and how."""

    inputs: Sequence[Input]
    options: Options
    in_flight: int
    pipeline: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = PATIENCE_S
    timeout_s: float | None = None


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Image files, folders of images, URLs, api:NAME?key=value, or - for stdin."
        ),
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, and nothing else.")] = False,
    form: Annotated[
        FormatName | None,
        typer.Option("--format", help="What to make of results, on stdout or in --out; default: tables for people."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write annotated pictures here, or the documents of --format."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            envvar="SLUICEWAY_ADDRESS",
            help="Use this running cluster instead of starting one.",
        ),
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
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", metavar="auto|fast|NUMBER", help="How large the detector sees an image; 1 is as it is."
        ),
    ] = None,
    class_agnostic: Annotated[
        bool,
        typer.Option("--class-agnostic", help="Compare regions of different classes for overlap, too."),
    ] = False,
    detect_only: Annotated[bool, typer.Option("--detect-only", help="Find regions and read nothing.")] = False,
    text_layer: Annotated[
        TextLayerName | None,
        typer.Option("--text-layer", help="Text that PDF pages hold: hand it out (prefer), or read what is printed."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Time for each image; default: what the cluster allows."),
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="With --json: where each word of a text lies, too.")] = False,
    priority: Annotated[PriorityName, typer.Option("--priority", help="How urgent it is.")] = PriorityName.NORMAL,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Images on their way at a time.")] = 16,
    patience: Annotated[
        float,
        typer.Option(
            "--patience", metavar="SECONDS", min=0, help="How long to wait for a cluster that cannot be reached."
        ),
    ] = PATIENCE_S,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="FILE", dir_okay=False, help="Skip what has a good line in these results of --json."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", exists=True, dir_okay=False, help="Configuration of the cluster that is started."),
    ] = None,
    settings: SetOption = None,
    model: ModelOption = None,
    workers: WorkersOption = None,
    token: TokenOption = None,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertificateOption = None,
    key: KeyOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the started servers log.")] = False,
) -> None:
    """Find and read the text in images, or whatever the pipeline says.

    Without --address, the cluster is started for this run and stopped after it.

    Exit codes: 0 all images were processed, 1 some failed or their pictures could not be written, 2 wrong usage,
    3 standard input or output is closed or full, 130 interrupted.

    [dim]Examples:[/]

    [dim]sluiceway run photo.jpg page.png --out annotated[/]

    [dim]sluiceway run scans/ --json > results.ndjson[/]

    [dim]sluiceway run scans/ --format searchable-pdf --out searchable[/]

    [dim]sluiceway run https://example.org/sign.jpg --address localhost:50051[/]
    """
    if json and form not in (None, FormatName.JSON):
        fail(f"--json is --format json, and not --format {form}", EXIT_USAGE)
    json = json or form is FormatName.JSON
    if timeout is not None and not timeout > 0:
        fail(f"--timeout must be above 0, not {timeout:g}", EXIT_USAGE)
    for name, value in (("--conf", conf), ("--iou", iou)):
        if value is not None and not 0 < value <= 1:
            fail(f"{name} must be above 0 and at most 1, not {value:g}", EXIT_USAGE)
    options = Options(
        confidence=conf,
        iou=iou,
        classes=tuple(name.strip() for name in classes.split(",") if name.strip()) if classes else (),
        max_detections=max_detections,
        image_size=image_size,
        scale=parse_scale(scale),
        # What nobody asks for is for the stage to say.
        class_agnostic=class_agnostic or None,
        priority=Priority(priority.value),
        return_images=out is not None or form is FormatName.SEARCHABLE_PDF,
        detect_only=detect_only,
        words=words or None,
        text_layer=cast("TextLayer | None", text_layer and text_layer.value),
    )
    params = parse_params(param or ())
    require_stdout()
    every = find_inputs(sources)
    inputs = left_to_do(every, done_before(resume)) if resume else every
    if out:
        _make_folder(out)
    widen_stdout(data=json or form is not None)
    report = Report(as_json=json, out=out, inputs=every, resume=resume, form=None if json else form)
    if not inputs:
        report.close()
        raise typer.Exit
    target = find_target(
        "run",
        address,
        config,
        changes=Changes(tuple(settings or ()), tuple(model or ()), workers),
        pipeline=pipeline,
        token=token,
        tls=tls_of(tls=tls, ca=ca, cert=cert, key=key),
        show_logs=verbose,
    )
    raise typer.Exit(
        asyncio.run(_run(Job(inputs, options, in_flight, pipeline, params, patience, timeout), target, report))
    )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot make the folder {out}: {error.strerror}", EXIT_USAGE)


async def _run(job: Job, target: Target, report: Report) -> int:
    stop_on_signals()
    try:
        async with target.running() as (address, tls):
            await _process(job, report, AsyncClient(address, token=target.token, tls=tls))
    except asyncio.CancelledError:
        errors.print("stopped")
        return EXIT_INTERRUPTED
    report.close()
    return EXIT_FAILED if report.failed or report.unwritten else 0


async def _process(job: Job, report: Report, client: AsyncClient) -> None:
    left = iter(job.inputs)
    waiting = Waiting(client, job.pipeline, lambda why: errors.print(why, style="yellow", markup=False, soft_wrap=True))
    async with client:
        with image_progress(len(job.inputs), report.console) as progress:

            async def give_out(result: Result, item: Input) -> None:
                named: Result = replace(result, source=item.name)
                # Drawing takes longer than a round trip; results go on arriving meanwhile. Whoever reads the results
                # may stop reading, which must not keep this program from ending.
                await in_thread(lambda: report.add(named, item))
                progress.advance(progress.task_ids[0])

            sources = (Source(item.source, params=job.params) for item in job.inputs)
            results = client.process_many(
                sources,
                job.options,
                pipeline=job.pipeline,
                timeout_s=job.timeout_s,
                in_flight=job.in_flight,
                patience_s=job.patience_s,
            )
            try:
                async with waiting.watching(), contextlib.aclosing(results):
                    async for result in results:
                        waiting.heard()
                        await give_out(result, next(left))
            except InvalidOption:
                # Wrong usage, for instance a token that no header can hold.
                raise
            except SluicewayError as error:
                # Nobody could be asked any more; every image has its line all the same.
                for item in left:
                    await give_out(Result(item.name, error=error), item)
