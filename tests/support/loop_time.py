"""Time that passes for an event loop alone."""

from __future__ import annotations

import asyncio

import pytest

__all__ = ["pass_time"]


def pass_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """So much time passes for every timer of this loop, and none for the machine."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)
