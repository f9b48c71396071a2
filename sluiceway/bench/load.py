"""The load generator: sends what is due when it is due, and keeps account of every request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from sluiceway.bench.arrivals import Arrival
from sluiceway.bench.outcome import NOT_SENT, TIMED_OUT, Answer, Outcome

__all__ = ["MAX_IN_FLIGHT", "Load", "Send"]

# A server that answers nothing must not fill this machine's memory with requests that wait.
MAX_IN_FLIGHT = 4096
# A caller that was refused waits as long before it comes again: one that did not would measure how fast the server says
# no, and keep it from anything else.
PAUSE_S = 0.05


class Send(Protocol):
    """Sends one source, by position, and waits for its end, at most `timeout_s`. Raises only what is a bug."""

    async def __call__(self, source: int, timeout_s: float) -> Answer:
        """Say what became of it."""
        ...


class Load:
    """One stretch of load on the clock of the running event loop.

    Args:
        send: sends one request.
        timeout_s: time for each request, from when it was due.
        max_in_flight: more are not on their way at once; what is due beyond that ends as `NOT_SENT`.

    Attributes:
        outcomes: of requests that have ended, in that order.
        in_flight: requests on their way.
        due: requests that were due so far.

    Resource handling: `open` and `closed` end when every request has ended; cancelled, they cancel those on their way.
    """

    def __init__(self, send: Send, *, timeout_s: float, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self.outcomes: list[Outcome] = []
        self.in_flight = 0
        self.due = 0

    def __repr__(self) -> str:
        return f"<Load {self.due} due, {self.in_flight} in flight, {len(self.outcomes)} ended>"

    async def open(self, arrivals: Iterable[Arrival]) -> None:
        """Send each arrival at its time, whatever became of those before.

        Args:
            arrivals: by rising time.
        """
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for due_s, source in arrivals:
                # No sleep for what is due already: after a hiccup of this process all of it goes out at once.
                if (wait_s := begun_s + due_s - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                self.due += 1
                if self.in_flight >= self._max_in_flight:
                    now_s = loop.time() - begun_s
                    self.outcomes.append(Outcome(due_s, now_s, now_s, Answer(NOT_SENT)))
                    continue
                # Counted here: the task begins only when this loop waits.
                self.in_flight += 1
                group.create_task(self._request(begun_s, due_s, source))

    async def closed(self, in_flight: int, seconds: float, sources: int) -> None:
        """Let so many callers send one request after the other, each when its last one has ended."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        async def caller() -> None:
            while (now_s := loop.time() - begun_s) < seconds:
                source = self.due % sources
                self.due += 1
                self.in_flight += 1
                if not await self._request(begun_s, now_s, source):
                    await asyncio.sleep(PAUSE_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(caller())

    async def _request(self, begun_s: float, due_s: float, source: int) -> bool:
        loop = asyncio.get_running_loop()
        sent_s = loop.time() - begun_s
        try:
            # What the generator lost is not given to the request again: its client would not wait longer for that.
            left_s = due_s + self._timeout_s - sent_s
            answer = await self._send(source, left_s) if left_s > 0 else Answer(TIMED_OUT)
        finally:
            self.in_flight -= 1
        outcome = Outcome(due_s, sent_s, loop.time() - begun_s, answer)
        self.outcomes.append(outcome)
        return outcome.ok
