"""The live view: what limits now, and below it a table of stages and replicas."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from sluiceway.errors import SluicewayError
from sluiceway.figures import ClusterFigures, Limit
from sluiceway.top import words
from sluiceway.top.feed import Lost, Watched, feed
from sluiceway.top.history import ORCHESTRATOR, History
from sluiceway.top.plain import head_of, subject_of
from sluiceway.top.replica import ReplicaScreen
from sluiceway.top.rows import GAP, Column, Order, Row, columns_of, rows_of
from sluiceway.top.story import Explaining, StoryScreen

__all__ = ["TopApp"]

# More than these say the same again.
LIMITS_SHOWN = 3
SPARK = 24
STYLES = {"orchestrator": "bold", "stage": "bold", "replica": "", "api": ""}


class Parts(DataTable[Text]):
    """The table of everything that has figures."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Open")]


class TopScreen(Screen[None]):
    """All of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "Quit"),
        Binding("s", "order", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("e", "explain", "Explain a request"),
        Binding("space", "pause", "Pause"),
        Binding("escape", "clear", "Clear filter", show=False),
    ]

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._figures: ClusterFigures | None = None
        self._history = History()
        self._order = Order.PIPELINE
        self._wanted = ""
        self._paused = False
        self._lost = ""
        self._drawn = False
        self._columns: tuple[Column, ...] = ()
        self._rows: list[Row] = []

    def compose(self) -> ComposeResult:
        """Head, limits, table."""
        yield Static(id="head")
        limits = Static(id="limits")
        limits.border_title = "What limits now"
        yield limits
        with Vertical(id="body"):
            yield Parts(id="table", cursor_type="row", cell_padding=GAP // 2)
        yield Input(placeholder="part of a name or an address", id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Wait for figures."""
        self.query_one("#filter").display = False
        self.query_one("#table").focus()
        self._drawn = True
        self._draw()

    def show(self, found: ClusterFigures | Lost) -> None:
        """Take in what came."""
        if isinstance(found, Lost):
            self._lost = found.why
        else:
            self._lost = ""
            self._history.add(found)
            if not self._paused:
                self._figures = found
        self._draw()

    @property
    def figures(self) -> ClusterFigures | None:
        """The last ones."""
        return self._figures

    # What keys do

    def action_order(self) -> None:
        """Order by the next column."""
        self._order = self._order.next()
        self._draw()

    def action_filter(self) -> None:
        """Ask for a part of a name."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear(self) -> None:
        """Show everything again."""
        self._wanted = ""
        field = self.query_one("#filter", Input)
        field.value = ""
        self._leave_filter()

    def action_pause(self) -> None:
        """Stand still, or go on."""
        self._paused = not self._paused
        self._draw()

    def on_data_table_row_selected(self) -> None:
        """Show the replica under the cursor."""
        table = self.query_one("#table", DataTable)
        if table.row_count and 0 <= table.cursor_row < len(self._rows):
            row = self._rows[table.cursor_row]
            if row.kind == "replica":
                self.app.push_screen(ReplicaScreen(self, row.stage, row.address))

    def action_explain(self) -> None:
        """Ask for a request and tell its story."""
        app = self.app
        if isinstance(app, TopApp) and app.explain is not None:
            app.push_screen(StoryScreen(app.explain))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer only what can be done."""
        if action == "explain":
            return isinstance(self.app, TopApp) and self.app.explain is not None
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        self._wanted = event.value.strip()
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep what was typed."""
        self._leave_filter()

    def on_resize(self, _: events.Resize) -> None:
        """Other columns may fit."""
        self._draw()

    def _leave_filter(self) -> None:
        self.query_one("#filter").display = False
        self.query_one("#table").focus()
        self._draw()

    # Drawing

    def _draw(self) -> None:
        if not self._drawn:
            # Nothing is there to draw on yet.
            return
        if self._figures is None:
            self.query_one("#head", Static).update(Text(f"sluiceway top  {self._address}", no_wrap=True))
            self.query_one("#limits", Static).update(Text(self._lost or "waiting for the first figures"))
            return
        self.query_one("#head", Static).update(self._head(self._figures))
        self.query_one("#limits", Static).update(self._limits(self._figures))
        self._draw_table(self._figures)

    def _head(self, figures: ClusterFigures) -> Text:
        own = figures.orchestrator
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append("sluiceway top ", "bold")
        text.append(f" {self._address}")
        marks = [f"by {self._order.value}"] if self._order is not Order.PIPELINE else []
        marks += [f"only “{self._wanted}”"] if self._wanted else []
        marks += ["paused"] if self._paused else []
        if marks:
            text.append(f"  [{', '.join(marks)}]", "reverse")
        text.append("\n")
        text.append(f"{words.number(own.rate)} images/s ", "bold")
        text.append(words.sparkline(self._history.of(ORCHESTRATOR), min(SPARK, max(0, self.size.width - 62))))
        text.append(f"  p50 {words.milliseconds(own.p50_ms)}  p99 {words.milliseconds(own.p99_ms)}")
        left = self.size.width - GAP - len(text.plain.rpartition("\n")[2])
        for part in head_of(figures):
            left -= len(part) + GAP
            if left < 0:
                break
            text.append(f"{' ' * GAP}{part}", "dim")
        return text

    def _limits(self, figures: ClusterFigures) -> Group:
        lines: list[RenderableType] = []
        if self._lost:
            lines.append(Text(f"{self._lost}; what is shown is old", "bold red"))
        shown = figures.limits[:LIMITS_SHOWN]
        for index, limit in enumerate(shown):
            lines += _told(limit, first=not index)
        if more := len(figures.limits) - len(shown):
            lines.append(Text(f"and {more} more", "dim"))
        return Group(*lines)

    def _draw_table(self, figures: ClusterFigures) -> None:
        table: DataTable[Text] = self.query_one("#table", DataTable)
        gpu = any(stage.gpu is not None for stage in figures.stages)
        # The scroll bar, and the gap before the first column.
        columns = columns_of(max(self.size.width - GAP, 1), gpu=gpu)
        rows = rows_of(figures, self._history, columns, order=self._order, wanted=self._wanted)
        if columns != self._columns or [row.key for row in rows] != [row.key for row in self._rows]:
            self._build_table(table, columns, rows)
        self._columns, self._rows = columns, rows
        for row in rows:
            for column in columns:
                table.update_cell(row.key, column.key, _cell(row, column))

    def _build_table(self, table: DataTable[Text], columns: tuple[Column, ...], rows: list[Row]) -> None:
        """Rows or columns are others: the cursor stays on what it was on."""
        chosen = self._rows[table.cursor_row].key if 0 <= table.cursor_row < len(self._rows) else ""
        table.clear(columns=True)
        for column in columns:
            title = Text(column.title, justify="right" if column.right else "left")
            table.add_column(title, key=column.key, width=column.width)
        for row in rows:
            table.add_row(*(_cell(row, column) for column in columns), key=row.key)
        at = next((index for index, row in enumerate(rows) if row.key == chosen), None)
        if at is not None:
            table.move_cursor(row=at)


class TopApp(App[int]):
    """`sluiceway top`.

    Args:
        client: of the cluster.
        interval_s: between two looks.
        explain: tells the story of a request; None where there are no stories.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "sluiceway top"
    CSS = """
    #head { height: 2; padding: 0 1; }
    #limits { height: auto; border: round $primary; padding: 0 1; }
    #body { height: 1fr; }
    #table { height: 1fr; }
    #filter { dock: bottom; margin-bottom: 1; height: 3; }
    ReplicaScreen, StoryScreen { layout: vertical; }
    .part { height: auto; padding: 0 1; }
    .title { text-style: bold; }
    #story { height: 1fr; padding: 0 1; }
    """

    def __init__(self, client: Watched, *, interval_s: float = 1.0, explain: Explaining | None = None) -> None:
        super().__init__()
        self._client = client
        self._interval_s = interval_s
        self.explain = explain
        self.fault: SluicewayError | None = None
        self._top = TopScreen(client.address)

    async def on_mount(self) -> None:
        """Begin to watch."""
        await self.push_screen(self._top)
        self.run_worker(self._watch(), exclusive=True, name="watch")

    async def _watch(self) -> None:
        try:
            async for found in feed(self._client, self._interval_s):
                self.show(found)
        except SluicewayError as error:
            self.fault = error
            self.exit(1)

    def show(self, found: ClusterFigures | Lost) -> None:
        """Draw what came, on the screen of all and on the one that is open."""
        self._top.show(found)
        if isinstance(self.screen, ReplicaScreen):
            self.screen.draw()


def _told(limit: Limit, *, first: bool) -> list[RenderableType]:
    what = Text(subject_of(limit), "bold red" if limit.fault else "bold")
    what.append(limit.what, "bold" if first else "")
    return [what, Padding(Text(f"→ {limit.help}", "dim"), (0, 0, 0, 2))] if limit.help else [what]


def _cell(row: Row, column: Column) -> Text:
    style = STYLES[row.kind]
    if row.fault and column.key in ("name", "state"):
        style = "bold red"
    elif column.key in ("spark", "bar"):
        style = "cyan"
    justify = "right" if column.right else "left"
    return Text(row.cells.get(column.key, ""), style, justify=justify, no_wrap=True)  # type: ignore[arg-type]
