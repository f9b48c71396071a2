"""What `bench` shows while it measures, on stderr: results alone go to stdout."""

from __future__ import annotations

import statistics
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sluiceway.bench.load import Load
from sluiceway.cli.terminal import errors

__all__ = ["BenchDisplay"]

# Latencies of so many answers are looked at: what happens now, not since the beginning.
RECENT = 200
UPDATES_PER_S = 4


class BenchDisplay:
    """A bar for each stretch of load and, while it lasts, how it stands; a line each where nobody watches live.

    Also a `sluiceway.bench.runs.Watch`.
    """

    def __init__(self) -> None:
        self._load: Load | None = None
        self._task: TaskID | None = None
        self._live = errors.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=errors,
            transient=True,
            refresh_per_second=UPDATES_PER_S,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, seconds: float, load: Load) -> None:
        """A stretch of load begins."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        if self._load is not None:
            errors.print(f"  {self.line()}", style="dim", markup=False, soft_wrap=True)
        self._load = load
        errors.print(f"{what}, {seconds:.0f} s", markup=False)
        self._task = self._progress.add_task(what, total=seconds, state="")

    def refresh(self) -> None:
        """Show how it stands; called a few times a second."""
        if self._task is not None:
            task = self._progress.tasks[0]
            self._progress.update(self._task, completed=task.elapsed or 0.0, state=self.line())

    def line(self) -> str:
        """How the load stands, in words."""
        load = self._load
        if load is None:
            return ""
        recent = [outcome.latency_s * 1000 for outcome in load.outcomes[-RECENT:] if outcome.ok]
        failed = sum(not outcome.ok for outcome in load.outcomes[-RECENT:])
        words = [f"{load.due} sent", f"{load.in_flight} in flight"]
        if len(recent) > 1:
            words.append(f"p50 {statistics.median(recent):.0f} ms")
            words.append(f"p99 {statistics.quantiles(recent, n=100, method='inclusive')[98]:.0f} ms")
        if failed:
            words.append(f"{failed} of the last {min(RECENT, len(load.outcomes))} not answered")
        return ", ".join(words)
