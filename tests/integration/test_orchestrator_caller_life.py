"""How a user's own API caller begins and ends with the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from fetching import fetching, use_caller
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import load_apis
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_runtime.errors import ConfigurationError
from waiting import until


class Own:
    """Writes down what happens to it."""

    params = ()
    story: list[str] = []  # noqa: RUF012 - of all of them; each test begins with an empty one

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:
        self.session = session
        self.story.append(f"setup {dict(config)}")
        if config.get("wrong"):
            raise KeyError(config["wrong"])

    async def __call__(self, call: Call) -> Answer:
        raise AssertionError("it is never called")

    async def close(self) -> None:
        assert not self.session.closed, "it may still be used"
        self.story.append("close")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Own, "story", [])
    return use_caller(monkeypatch, Own)


async def test_a_caller_is_set_up_with_its_table_and_closed_once(own: str) -> None:
    async with fetching({"own": {"caller": own, "config": {"url": "x", "more": {"deep": [1]}}}}) as made:
        assert Own.story == ["setup {'url': 'x', 'more': {'deep': [1]}}"]
    await made.fetcher.close()
    assert Own.story[1:] == ["close"]


async def test_a_caller_that_cannot_be_set_up_keeps_the_server_from_starting(own: str) -> None:
    apis = {"good": {"caller": own}, "archive": {"caller": own, "config": {"wrong": "ARCHIVE_URL"}}}
    fetcher = Fetcher(OrchestratorConfig(), load_apis({"api": apis}), {})
    with pytest.raises(ConfigurationError, match=r"api\.archive\.caller: setup failed: KeyError\('ARCHIVE_URL'\)"):
        await fetcher.start()
    await fetcher.close()
    assert Own.story[2:] == ["close"], "the one that was set up"


async def test_closing_is_bounded_in_time_and_its_errors_go_to_the_log(
    own: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sluiceway_orchestrator.fetch.user_api.CLOSE_S", 0.05)
    release = asyncio.Event()

    class Stubborn(Own):
        async def close(self) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    self.story.append("goes on")

    class Broken(Own):
        async def close(self) -> None:
            raise RuntimeError("no")

    apis = {
        "broken": {"caller": use_caller(monkeypatch, Broken, "broken_callers:Own")},
        "stubborn": {"caller": use_caller(monkeypatch, Stubborn, "stubborn_callers:Own")},
        "good": {"caller": own},
    }
    async with asyncio.timeout(30):
        async with fetching(apis):
            pass
        assert "close" in Own.story
        assert "api broken: closing the caller failed" in caplog.text
        assert "api stubborn: the caller was not closed within" in caplog.text
        release.set()
        await until(lambda: "goes on" in Own.story)
        await asyncio.sleep(0)


async def test_a_caller_without_close_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        params = ()

        async def setup(self, session: object, config: object) -> None:
            pass

        async def __call__(self, call: Call) -> Answer:
            return Answer()

    async with fetching({"bare": {"caller": use_caller(monkeypatch, Bare)}}):
        pass
