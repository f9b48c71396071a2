"""Whether a stage is there is told once for each change, and not at all while a start is as quick as it should be."""

from __future__ import annotations

import asyncio
import logging

import pytest
from sluiceway_orchestrator.stages import presence
from sluiceway_orchestrator.stages.presence import Presence


class Told:
    """A stage that comes and goes, and what the log says of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.there = False
        self.presence = Presence("words", "dns:///words:1", lambda: self.there)

    def turn(self, *, there: bool) -> None:
        self.there = there
        self.presence.changed()

    @property
    def lines(self) -> list[str]:
        return [record.getMessage().partition(":")[0] for record in self._caplog.records]


async def test_each_change_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "NOTICE_S", 0.0)
    told = Told(caplog)
    told.presence.start()
    await asyncio.sleep(0.05)
    for there in (False, False, True, True, False, True):
        told.turn(there=there)
    away, here = "words is not there", "words is there"
    assert told.lines == [away, here, away, here]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "WARNING", "INFO"], "at a start it is no fault"
    told.presence.close()
    told.turn(there=False)


async def test_one_that_is_found_in_time_was_never_away(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    told.presence.start()
    told.turn(there=False)
    told.turn(there=True)
    assert told.lines == ["words is there"]
    told.presence.close()
