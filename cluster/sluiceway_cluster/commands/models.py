"""`sluiceway models` and `sluiceway samples`: what there is by name, and bringing it into the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import EXIT_FAILED, EXIT_USAGE, BesideResults, errors, fail, output, pulled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sluiceway_runtime import weights

__all__ = ["PullDisplay", "models_app", "pull_missing", "samples_app"]

models_app = typer.Typer(help="Weights by name: list them, pull them into the cache.", no_args_is_help=True)
samples_app = typer.Typer(help="Sample images for a first try.", no_args_is_help=True)


class PullDisplay:
    """Shows how a pull goes: bars on a terminal, a line for each step elsewhere."""

    def __init__(self) -> None:
        self._progress = BesideResults(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            disable=not errors.is_terminal,
        )
        self._task = self._progress.add_task("", visible=False)
        self._last = ("", "")

    def __enter__(self) -> PullDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: weights.Progress) -> None:
        """Show the next step."""
        if progress.step != "done":
            self._progress.update(
                self._task,
                description=f"{progress.step} {progress.name}",
                completed=progress.done_bytes,
                total=progress.total_bytes or None,
                visible=True,
            )
        step = (progress.step, progress.name)
        if step != self._last and progress.step in ("download", "convert") and not errors.is_terminal:
            errors.print(f"{progress.step} {progress.name} …")
        self._last = step


@models_app.command("list")
def list_models() -> None:
    """List the weights that have a name, and which of them are here."""
    require_servers("models list")
    from sluiceway_runtime import weights  # noqa: PLC0415 - not there in a client-only installation

    table = Table("name", "for", "what it is", "licence", "state", box=None, pad_edge=False, header_style="bold")
    for name, entry in weights.load_registry().models.items():
        state = "here" if weights.is_available(name) else f"{entry.download_bytes / 1e6:.0f} MB to download"
        table.add_row(name, entry.kind, entry.title, entry.licence, state)
    output().print(table)
    errors.print(f"cache: {weights.cache_folder()} (SLUICEWAY_CACHE sets another)", style="dim")


@models_app.command("pull")
def pull_models(
    names: Annotated[list[str] | None, typer.Argument(help="Names from `sluiceway models list`.")] = None,
    *,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="What the configuration names: what `up` and `run` will load.")
    ] = False,
    tests: Annotated[
        bool, typer.Option("--tests", help="What the tests of Sluiceway itself need, samples too.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All that have a name.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", exists=True, dir_okay=False, help="Configuration file, for --defaults.")
    ] = None,
) -> None:
    """Download weights into the cache and check them. What is there already costs nothing.

    [dim]Example: sluiceway models pull text-small ppocrv5-mobile[/]
    """
    require_servers("models pull")
    from sluiceway_runtime import weights  # noqa: PLC0415

    registry = weights.load_registry()
    wanted = list(names or ())
    if defaults:
        wanted += _configured(config)
    if tests:
        wanted += [name for name, entry in registry.models.items() if entry.tests]
    if everything:
        wanted += list(registry.models)
    if not wanted:
        fail("name what to pull, or give --defaults or --all; `sluiceway models list` shows the names", EXIT_USAGE)
    _pull(list(dict.fromkeys(wanted)))
    if tests:
        with PullDisplay() as display:
            weights.pull_samples((), display.show)


@models_app.command("path")
def path_of_model(name: Annotated[str, typer.Argument(help="Name from `sluiceway models list`.")]) -> None:
    """Print where the file of weights is, for other programs.

    [dim]Example: sluiceway models path text-nano[/]
    """
    require_servers("models path")
    from sluiceway_runtime import weights  # noqa: PLC0415
    from sluiceway_runtime.errors import StartupError  # noqa: PLC0415

    registry = weights.load_registry().models
    if name not in registry:
        fail(f"no weights named {name}; there are {', '.join(registry)}", EXIT_USAGE)
    try:
        found = weights.resolve(name, kind=registry[name].kind)  # type: ignore[arg-type]
    except StartupError as error:
        fail(error)
    typer.echo(str(found.path))


@models_app.command("rm")
def remove_models(
    names: Annotated[list[str] | None, typer.Argument(help="Names from `sluiceway models list`.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that are in the cache.")] = False,
) -> None:
    """Remove weights from the cache. Servers that have loaded them go on.

    [dim]Example: sluiceway models rm text-small ppocrv5-mobile[/]
    """
    require_servers("models rm")
    from sluiceway_runtime import weights  # noqa: PLC0415

    known = weights.load_registry().models
    if not names and not everything:
        fail("name what to remove, or give --all; `sluiceway models list` shows what is here", EXIT_USAGE)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        fail(f"no weights named {', '.join(unknown)}; there are {', '.join(known)}", EXIT_USAGE)
    for name in names or [name for name, entry in known.items() if entry.shipped is None]:
        there = weights.remove(name)
        if there or not everything:
            errors.print(f"{name}: {'removed' if there else 'was not in the cache'}")


@models_app.command("calibrate")
def calibrate_model(
    model: Annotated[str, typer.Argument(help="Name of detection weights, or path of an ONNX file.")],
    *,
    images: Annotated[
        Path,
        typer.Option(
            "--images", exists=True, file_okay=False, help="Folder of images like those that will come; 50 or more."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="ONNX file to write.")],
    least: Annotated[
        float, typer.Option("--least", min=0, max=1, help="Share of boxes that must stay where they are.")
    ] = 0.95,
) -> None:
    r"""Quantise a detector to int8, for CPUs that are not fast in bf16.

    Compares its boxes with those in f32 and writes nothing if too few agree. Needs sluiceway\[calibration].

    [dim]Example: sluiceway models calibrate text-nano --images scans/ --to text-nano-int8.onnx[/]
    """
    require_servers("models calibrate")
    from sluiceway_runtime import weights  # noqa: PLC0415
    from sluiceway_runtime.errors import StartupError  # noqa: PLC0415

    try:
        source = weights.resolve(model, kind="detection")
    except StartupError as error:
        fail(error)
    # A process of its own: it takes a gigabyte, and what it logs of its libraries goes to stderr.
    command = [sys.executable, "-m", "sluiceway_detection.calibration", str(source.path), str(to)]
    command += ["--images", str(images), "--least", str(least)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        raise typer.Exit(EXIT_FAILED)
    found = json.loads(done.stdout)
    console = output()
    console.print(
        f"{found['matched']:.1%} of {found['boxes']} boxes overlap their partner in f32 by more than 0.8; confidences "
        f"differ by {found['confidence_gap']:.3f} in the mean, {found['confidence_gap_max']:.3f} at most"
    )
    console.print(f"one image on one thread: f32 {found['f32_ms']:.0f} ms, int8 {found['int8_ms']:.0f} ms")
    console.print(f'to serve it: \\[detection] model = "{to}"', soft_wrap=True)


@samples_app.command("pull")
def pull_samples(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all of them if none is named.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to copy them to.")] = None,
) -> None:
    """Download sample images: a street, two people, a printed page, handwriting.

    [dim]Example: sluiceway samples pull bus.jpg page.png --to samples[/]
    """
    require_servers("samples pull")
    from sluiceway_runtime import weights  # noqa: PLC0415

    with PullDisplay() as display:
        paths = weights.pull_samples(names or (), display.show)
    for name, path in paths.items():
        place = path
        if to:
            try:
                to.mkdir(parents=True, exist_ok=True)
                place = Path(shutil.copy(path, to / name))
            except OSError as error:
                fail(f"cannot write {to / name}: {error.strerror}")
        pulled(name, place)


def pull_missing(names: Sequence[str]) -> None:
    """Pull those of the named weights that are not here, with a display; nothing to say if all are."""
    from sluiceway_runtime import weights  # noqa: PLC0415

    missing = [name for name in names if not weights.is_available(name)]
    if missing:
        _pull(missing)


def _configured(config: Path | None) -> tuple[str, ...]:
    from sluiceway_cluster import plan_cluster  # noqa: PLC0415

    # Images are built without the secrets and files of where they run.
    plan = plan_cluster(config, os.environ, free_ports=False, here=False)
    # Also for stages that are configured and not used yet.
    written = (name for stage in plan.unused if not stage.is_default for name in stage.weights)
    return (*plan.weights, *written)


def _pull(names: list[str]) -> None:
    from sluiceway_runtime import weights  # noqa: PLC0415

    with PullDisplay() as display:
        weights.pull(names, display.show)
    for name in names:
        entry = weights.load_registry().models[name]
        pulled(name, f"{entry.title}; {entry.licence}")
