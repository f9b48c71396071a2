"""Tells health watchers whether a server takes work, as soon as that changes; measures how late its event loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sluiceway_runtime.clock import monotonic, next_beat
from sluiceway_runtime.metrics.server import LoopLag

__all__ = ["Readiness"]

# How often the loop's lag is looked at while there is work, of which each look is a wake-up.
BUSY_LOOK_S = 0.2
# And while there is none. So much later it is heard, too, of a service that changes without a word.
IDLE_LOOK_S = 2.0


class Readiness:
    """Announces one server's readiness.

    Args:
        ready: whether it takes work now.
        announce: tells the watchers.
        busy: whether there is work, or was since it was last asked.
        lag: of the event loop, where samples go.
    """

    def __init__(
        self,
        ready: Callable[[], bool],
        announce: Callable[[bool], Awaitable[None]],
        *,
        busy: Callable[[], bool],
        lag: LoopLag,
    ) -> None:
        self._ready = ready
        self._announce = announce
        self._busy = busy
        self._lag = lag
        self._look = asyncio.Event()

    def changed(self) -> None:
        """What `ready` says may be another thing now."""
        self._look.set()

    async def watch(self) -> None:
        """Announce, at once and at each change, until cancelled."""
        announced = None
        while True:
            self._look.clear()
            ready = self._ready()
            if ready != announced:
                announced = ready
                await self._announce(ready)
            await self._pause()

    async def _pause(self) -> None:
        """Until something has changed, or it is time for a look."""
        begun_s = monotonic()
        until_s = begun_s + BUSY_LOOK_S if self._busy() else next_beat(begun_s, IDLE_LOOK_S)
        timer = asyncio.get_running_loop().call_at(until_s, self._look.set)
        try:
            await self._look.wait()
        finally:
            timer.cancel()
        late_s = monotonic() - until_s
        if late_s >= 0:
            self._lag.observe(late_s)
