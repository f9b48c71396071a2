"""What is shown while servers start."""

from __future__ import annotations

import io
import itertools
import re

import pytest
from rich.console import Console

from sluiceway.cli import terminal

# Servers say what they like; brackets are nothing but brackets.
LOGGED = "12:00:00 INFO [-] [/red] compiled 3 of 12 graphs"


def show_a_start(monkeypatch: pytest.MonkeyPatch, *, live: bool) -> str:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=screen, force_terminal=live, width=120, color_system=None))
    with terminal.ServerDisplay() as display:
        for detail in ("", "starting", LOGGED):
            display.show("recognition", "starting", detail)
    display.show("recognition", "ready", "1.0 s, [::1]:50053")
    return screen.getvalue()


def test_a_terminal_shows_what_a_server_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"recognition   {LOGGED}" in show_a_start(monkeypatch, live=True)


def test_elsewhere_a_line_says_what_is_waited_for_and_one_that_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    said = show_a_start(monkeypatch, live=False).splitlines()
    assert said == ["  recognition   starting", "✓ recognition   ready (1.0 s, [::1]:50053)"]


def test_progress_shows_how_fast_it_goes_and_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=screen, force_terminal=True, width=120, color_system=None))
    monkeypatch.setattr("sys.stdout", io.StringIO())
    times = itertools.count(0, 0.5)
    with terminal.image_progress(100, None) as progress:
        monkeypatch.setattr(progress, "get_time", lambda: next(times))
        for _ in range(5):
            progress.advance(progress.task_ids[0])
        progress.refresh()
    assert re.search(r"5/100 +\d+\.\d/s +\d:\d\d:\d\d left \d:\d\d:\d\d", screen.getvalue())
