"""One replica: its workers, the process in front of them, and its GPUs."""

from __future__ import annotations

from typing import ClassVar, Protocol

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from sluiceway.figures import ClusterFigures, FrontFigures, ReplicaFigures, WorkerFigures
from sluiceway.top import words

__all__ = ["ReplicaScreen"]

COLUMNS = (("worker", 6), ("pid", 8), ("state", 9), ("busy", 4), ("", 10), ("rate", 7), ("batch", 5), ("restarts", 8))


class Watching(Protocol):
    """Who has the figures."""

    @property
    def figures(self) -> ClusterFigures | None:
        """The last ones."""
        ...


class ReplicaScreen(Screen[None]):
    """Opened over the table; `escape` goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, watching: Watching, stage: str, address: str) -> None:
        super().__init__()
        self._watching = watching
        self._stage = stage
        self._address = address

    def compose(self) -> ComposeResult:
        """Its name and its figures, then its workers."""
        yield Static(f"{self._stage}  {self._address}", classes="part title", markup=False)
        yield Static(id="figures", classes="part")
        yield DataTable[Text](id="workers", cursor_type="none")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Draw what is known."""
        table: DataTable[Text] = self.query_one("#workers", DataTable)
        for title, width in COLUMNS:
            table.add_column(title, width=width)
        self.draw()

    def draw(self) -> None:
        """Take in what came."""
        replica = self._replica()
        table: DataTable[Text] = self.query_one("#workers", DataTable)
        table.clear()
        if replica is None:
            self.query_one("#figures", Static).update(Text("it is not there any more"))
            return
        self.query_one("#figures", Static).update(Text("\n".join(_lines(replica))))
        for worker in replica.workers:
            table.add_row(*_cells(worker))

    def _replica(self) -> ReplicaFigures | None:
        figures = self._watching.figures
        if figures is None:
            return None
        return next(
            (
                replica
                for stage in figures.stages
                if stage.name == self._stage
                for replica in stage.replicas
                if replica.address == self._address
            ),
            None,
        )


def _lines(replica: ReplicaFigures) -> list[str]:
    state = "takes work" if replica.ready else f"takes no work ({replica.state or 'does not answer'})"
    lines = [
        f"{state}  version {replica.group or words.UNKNOWN}  release {replica.server_version or words.UNKNOWN}",
        (
            f"rate {words.rate(replica.rate)}  failing {words.rate(replica.failed_rate)}"
            f"  turned away {words.rate(replica.refused_rate)}"
        ),
        (
            f"waiting {replica.queued}  with workers {replica.running} of {replica.capacity}"
            f"  oldest wait {words.milliseconds(replica.wait_ms)}"
        ),
        f"calls p50 {words.milliseconds(replica.p50_ms)}  p99 {words.milliseconds(replica.p99_ms)}",
    ]
    if replica.front is not None:
        lines += _front(replica.front)
    for gpu in replica.gpus:
        memory = f"{words.megabytes(gpu.memory_used_bytes)} of {words.megabytes(gpu.memory_total_bytes)}"
        lines.append(f"GPU {gpu.index} {gpu.name}  {words.percent(gpu.utilisation)}  {memory}")
    return lines


def _front(front: FrontFigures) -> list[str]:
    lines = [
        (
            f"event loop {words.percent(front.loop)}  waits for a CPU {words.percent(front.starved)}"
            f"  front uses {words.number(front.cpus_used)} of {front.cpus:g} CPUs"
        ),
        (
            f"memory {words.megabytes(front.memory_bytes)}  held {words.megabytes(front.held_bytes)}"
            f" of {words.megabytes(front.held_limit_bytes)}"
        ),
    ]
    if front.throttled is not None:
        lines.append(f"stopped by the CPU quota in {words.percent(front.throttled)} of its periods")
    return lines


def _cells(worker: WorkerFigures) -> tuple[Text, ...]:
    values = (
        str(worker.index),
        str(worker.pid or words.UNKNOWN),
        worker.state,
        words.percent(worker.busy),
        words.bar(worker.busy, 10),
        words.rate(worker.rate),
        words.number(worker.batch),
        str(worker.restarts),
    )
    left = (2, 4)
    return tuple(
        Text(value, justify="left" if index in left else "right", no_wrap=True) for index, value in enumerate(values)
    )
