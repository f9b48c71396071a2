"""The story of one request, where the cluster tells stories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from sluiceway.errors import SluicewayError

__all__ = ["Explaining", "StoryScreen"]

# From the id of a request to its story, for a terminal of so many columns.
Explaining: TypeAlias = Callable[[str, int], Awaitable[str]]


class StoryScreen(Screen[None]):
    """Asks for an id and shows what became of that request; `escape` goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "Back")]

    def __init__(self, explain: Explaining) -> None:
        super().__init__()
        self._explain = explain

    def compose(self) -> ComposeResult:
        """A field, and what is told."""
        yield Input(placeholder="id of a request (x-request-id)", id="request")
        with VerticalScroll(id="story"):
            yield Static(id="told")
        yield Footer(show_command_palette=False)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Tell it, or why not."""
        told = self.query_one("#told", Static)
        try:
            told.update(Text.from_ansi(await self._explain(event.value.strip(), self.size.width - 2)))
        except SluicewayError as error:
            told.update(Text(str(error), "red"))
