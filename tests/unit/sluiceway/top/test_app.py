"""The screens of `sluiceway top`, as text: a recorded cluster at several widths, and what keys do."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf import json_format
from rich.console import Console
from textual.pilot import Pilot
from waiting import until

from sluiceway.client.convert import from_watch
from sluiceway.errors import SluicewayError, Unauthenticated, Unavailable
from sluiceway.figures import ClusterFigures
from sluiceway.top.app import TopApp
from sluiceway.top.feed import Lost, feed
from sluiceway.watch.v1 import watch_pb2

HERE = Path(__file__).parent
# A real cluster under load, a replica of which was killed, as `GET /v1/watch` told it.
RECORDED: Sequence[ClusterFigures] = [
    from_watch(json_format.ParseDict(json.loads(line), watch_pb2.WatchResponse()))
    for line in (HERE / "recorded.ndjson").read_text("utf-8").splitlines()
]


class Scripted:
    """Says what it is told to say, then nothing more; an error ends a connection."""

    address = "vision.example.org:50051"

    def __init__(self, *connections: Sequence[ClusterFigures | SluicewayError]) -> None:
        self._connections = list(connections)

    async def watch(self, interval_s: float = 1.0) -> AsyncGenerator[ClusterFigures]:
        del interval_s
        for item in self._connections.pop(0) if self._connections else ():
            if isinstance(item, SluicewayError):
                raise item
            yield item
        await asyncio.Event().wait()


@asynccontextmanager
async def opened(client: Scripted, size: tuple[int, int] = (120, 30), **options: object) -> AsyncIterator[Pilot[int]]:
    app = TopApp(client, **options)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        yield pilot


def screen_of(pilot: Pilot[int]) -> str:
    """What stands on the screen, a line a row."""
    app = pilot.app
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, record=True, color_system=None
    )
    console.print(app.screen._compositor.render_update(full=True))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()).rstrip() + "\n"


async def shown_with(pilot: Pilot[int], text: str) -> str:
    """The screen once it shows a text."""

    async def shown() -> str | None:
        await pilot.pause()
        screen = screen_of(pilot)
        return screen if text in screen else None

    found = await until(shown, what=f"it shows {text!r}", state=lambda: screen_of(pilot))
    assert found is not None
    return found


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
async def test_a_recorded_cluster(width: int) -> None:
    """SLUICEWAY_TEST_WRITE_GOLDEN=1 writes the screens anew: look at what has changed."""
    async with opened(Scripted(RECORDED), (width, 24)) as pilot:
        async with asyncio.timeout(30):
            while pilot.app.screen.figures is not RECORDED[-1]:  # type: ignore[attr-defined]
                await pilot.pause(0.02)
        await pilot.pause()
        shown = screen_of(pilot)
    golden = HERE / "golden" / f"top-{width}.txt"
    if os.environ.get("SLUICEWAY_TEST_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, "utf-8")
    assert shown == golden.read_text("utf-8")


async def test_a_replica_is_opened_and_left() -> None:
    stage = RECORDED[-1].stages[0]
    async with opened(Scripted(RECORDED)) as pilot:
        await shown_with(pilot, stage.replicas[0].address)
        await pilot.press("down", "down", "enter")
        shown = await shown_with(pilot, "event loop")
        assert f"{stage.name}  {stage.replicas[0].address}" in shown
        for worker in stage.replicas[0].workers:
            assert str(worker.pid) in shown
        await pilot.press("escape")
        await shown_with(pilot, "What limits now")


async def test_keys_sort_filter_and_pause() -> None:
    client = Scripted(RECORDED)
    async with opened(client) as pilot:
        await shown_with(pilot, "recognition")
        await pilot.press("s")
        assert "by oldest wait" in await shown_with(pilot, "[by")
        await pilot.press("slash", *"recog", "enter")
        shown = await shown_with(pilot, "only “recog”")
        assert RECORDED[-1].stages[0].replicas[0].address not in shown
        await pilot.press("escape")
        await shown_with(pilot, RECORDED[-1].stages[0].replicas[0].address)
        await pilot.press("space")
        await shown_with(pilot, "paused")
        pilot.app.show(RECORDED[0])  # type: ignore[attr-defined]
        assert pilot.app.screen.figures is RECORDED[-1]  # type: ignore[attr-defined]
        await pilot.press("space")
        pilot.app.show(RECORDED[0])  # type: ignore[attr-defined]
        assert pilot.app.screen.figures is RECORDED[0]  # type: ignore[attr-defined]


async def test_a_connection_that_breaks_is_told_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway.top.feed.AGAIN_S", 0.2)
    client = Scripted([RECORDED[0], Unavailable("cannot reach it")], [Unavailable("still not there")], RECORDED)
    async with opened(client) as pilot:
        await shown_with(pilot, "still not there; what is shown is old")
        shown = await shown_with(pilot, RECORDED[-1].limits[0].what)
        assert "what is shown is old" not in shown


async def test_before_the_first_figures_it_says_why_there_are_none() -> None:
    async with opened(Scripted([Unavailable("cannot reach it")])) as pilot:
        await shown_with(pilot, "cannot reach it")


async def test_what_waiting_does_not_change_ends_it() -> None:
    app = TopApp(Scripted([Unauthenticated("a token is wanted")]))
    async with app.run_test() as pilot:
        async with asyncio.timeout(30):
            while app.fault is None:
                await pilot.pause(0.02)
    assert "a token is wanted" in str(app.fault)
    assert app.return_value == 1


async def test_the_story_of_a_request_is_told_where_there_are_stories() -> None:
    async def explain(request_id: str, width: int) -> str:
        if request_id == "r-1":
            return f"it waited\nin {width} columns"
        raise SluicewayError("nobody knows it", code="NOT_FOUND")

    async with opened(Scripted(RECORDED), explain=explain) as pilot:
        await shown_with(pilot, "Explain a request")
        await pilot.press("e", *"r-1", "enter")
        await shown_with(pilot, "in 118 columns")
        await pilot.press(*"2", "enter")
        await shown_with(pilot, "nobody knows it")
        await pilot.press("escape")
        await shown_with(pilot, "What limits now")


async def test_where_there_are_no_stories_none_is_offered() -> None:
    async with opened(Scripted(RECORDED)) as pilot:
        shown = await shown_with(pilot, "recognition")
        assert "Explain" not in shown
        await pilot.press("e")
        assert "What limits now" in screen_of(pilot)


async def test_it_is_the_same_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the letters are those that are there with colours, and none has a colour."""
    screens = []
    for variables in ({}, {"NO_COLOR": "1"}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        async with opened(Scripted(RECORDED[-1:])) as pilot:
            screens.append(await shown_with(pilot, RECORDED[-1].limits[0].what))
            colours = re.findall(r"-r\d+ \{ fill: (#[0-9a-f]{6})", pilot.app.export_screenshot())
    assert screens[0] == screens[1]
    # Of the last, the one without. The first is what the picture itself has for text that has none.
    assert len(colours) > 2
    assert all(colour[1:3] == colour[3:5] == colour[5:7] for colour in colours[1:])


async def test_a_server_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway.top.feed.SILENT_INTERVALS", 0.1)
    found = feed(Scripted([RECORDED[0]]), 1.0)
    assert await anext(found) is RECORDED[0]
    assert await anext(found) == Lost("vision.example.org:50051 does not answer")
    await found.aclose()
