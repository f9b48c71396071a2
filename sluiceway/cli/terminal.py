"""What the command says to people: progress and complaints on stderr, so that stdout holds results alone."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_STREAMS",
    "EXIT_USAGE",
    "BesideResults",
    "ServerDisplay",
    "errors",
    "fail",
    "image_progress",
    "output",
    "pulled",
    "shown",
    "widen_stdout",
]

EXIT_FAILED, EXIT_USAGE, EXIT_STREAMS, EXIT_INTERRUPTED = 1, 2, 3, 130
# Where stdout is a file or a pipe: wide enough that no text is folded in ordinary results.
PLAIN_WIDTH = 200

errors = Console(stderr=True, highlight=False)


def output() -> Console:
    """Make the console for results."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def fail(message: object, code: int = EXIT_FAILED) -> NoReturn:
    """Say what is wrong, in red where there is colour, and end the command."""
    errors.print(f"sluiceway: {message}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(code)


def widen_stdout(*, data: bool) -> None:
    """Let stdout take every letter, whatever the locale: NDJSON is UTF-8, tables have ? for what cannot be shown."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8" if data else None, errors="replace")


def shown(text: str) -> str:
    """Replace what stdout cannot take: bytes of file names that are not UTF-8, which Python keeps as surrogates."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


class BesideResults(Progress):
    """Progress that leaves standard output alone: Rich would draw what is written there above the bar, on stderr."""

    def __init__(self, *columns: str | ProgressColumn, console: Console | None = None, disable: bool = False) -> None:
        super().__init__(
            *columns,
            console=console or errors,
            disable=disable,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


class RateColumn(ProgressColumn):
    """How many a second, over the last of them."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


class ServerDisplay:
    """Shows servers as they become ready: spinners on a terminal, else a line for each change worth telling."""

    def __init__(self) -> None:
        self._progress = BesideResults(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._live = errors.is_terminal

    def __enter__(self) -> ServerDisplay:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def show(self, name: str, state: str, detail: str) -> None:
        """Show that a server is in a state."""
        if state == "ready":
            errors.print(f"[green]✓[/] {name:<13} ready ({detail})")
            if name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))
        elif state == "died":
            errors.print(f"✗ {detail or name + ' died'}", style="red", markup=False, soft_wrap=True)
        elif state == "starting":
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task("", total=None)
                if not self._live:
                    errors.print(f"  {name:<13} starting")
            self._progress.update(self._tasks[name], description=f"{name:<13} {detail or state}")


@contextmanager
def image_progress(total: int, results: Console | None) -> Iterator[Progress]:
    """Show a bar over images; nothing where nobody watches.

    Args:
        total: how many images.
        results: the console that tables go to; None if stdout holds data. On a terminal the bar has to be drawn by the
            same console, or the two would write over each other.
    """
    console = results if results and results.is_terminal else errors
    with BesideResults(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or (results is None and sys.stdout.isatty()),
    ) as progress:
        progress.add_task("images", total=total)
        yield progress


def pulled(name: str, path: object) -> None:
    """Say that something is in the cache."""
    errors.print(f"[green]✓[/] {name:<15} {escape(str(path))}", soft_wrap=True)
