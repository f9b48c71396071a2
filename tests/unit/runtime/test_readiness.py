"""Watchers hear of a change at once, by being told and not by asking; and an idle server hardly looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry
from sluiceway_runtime.clock import next_beat
from sluiceway_runtime.metrics.server import LoopLag
from sluiceway_runtime.server import readiness as module
from sluiceway_runtime.server.readiness import Readiness

LOOKS = "sluiceway_event_loop_lag_seconds_count"


class Server:
    """What is watched, and what its watchers heard."""

    def __init__(self) -> None:
        self.is_ready = True
        self.is_busy = False
        self.heard: list[bool] = []
        self.registry = CollectorRegistry()
        self.told = asyncio.Event()
        self.readiness = Readiness(
            lambda: self.is_ready, self._hear, busy=lambda: self.is_busy, lag=LoopLag(self.registry)
        )

    async def _hear(self, ready: bool) -> None:
        self.heard.append(ready)
        self.told.set()

    @property
    def looks(self) -> float:
        return self.registry.get_sample_value(LOOKS) or 0.0


async def watched(server: Server, until: Callable[[], Awaitable[object]]) -> None:
    watching = asyncio.create_task(server.readiness.watch())
    async with asyncio.timeout(20):
        await until()
    watching.cancel()
    await asyncio.wait((watching,))


async def test_a_change_is_heard_as_soon_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_LOOK_S", 1e6)
    server = Server()

    async def change() -> None:
        await server.told.wait()
        server.told.clear()
        server.is_ready = False
        server.readiness.changed()
        await server.told.wait()

    await watched(server, change)
    assert server.heard == [True, False]
    assert server.looks == 0


async def test_a_change_without_a_word_is_heard_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_LOOK_S", 0.01)
    server = Server()

    async def change() -> None:
        await server.told.wait()
        server.told.clear()
        server.is_ready = False
        await server.told.wait()

    await watched(server, change)
    assert server.heard == [True, False]


async def test_while_there_is_work_the_loop_is_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_LOOK_S", 1e6)
    monkeypatch.setattr(module, "BUSY_LOOK_S", 0.001)
    server = Server()
    server.is_busy = True

    async def look() -> None:
        while server.looks < 5:
            await asyncio.sleep(0.001)

    await watched(server, look)
    assert server.heard == [True]


def test_whoever_looks_equally_often_looks_at_the_same_moments() -> None:
    assert next_beat(100.1, 2.0) == next_beat(101.9, 2.0) == 102.0
    assert next_beat(102.0, 2.0) == 104.0
