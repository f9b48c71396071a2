"""One replica of a stage: its channel, its health, what it says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic

from sluiceway_orchestrator.stages.balancer import Occupancy

__all__ = ["Replica", "StageWire"]

log = logging.getLogger(__name__)

Description = TypeVar("Description")
Description_co = TypeVar("Description_co", covariant=True)

# Between two attempts to watch the health of a replica that does not answer.
WATCH_PAUSE_S = 0.25
# A replica without the health protocol is asked for its description this often instead.
POLL_S = 1.0
DESCRIBE_TIMEOUT_S = 5.0
# A replica that failed calls is left alone for this long, twice as long for each further failure in a row.
FIRST_HOLD_S = 0.05
LONGEST_HOLD_S = 1.0


class StageWire(Protocol[Description_co]):
    """The calls that every stage has; implemented where the generated code is known."""

    service: str

    async def describe(self, channel: grpc.aio.Channel, timeout_s: float) -> Description_co:
        """Ask the stage what it is. Raises grpc.aio.AioRpcError."""
        ...

    def bind(self, channel: grpc.aio.Channel) -> Any:
        """The stage's own call over a channel; made once, since making it costs as much as calling it."""
        ...

    def workers(self, description: Any) -> int:
        """How many items it surely takes at once, as far as its description says."""
        ...

    def group(self, description: Any) -> str:
        """Name of the version that it serves: equal for replicas whose answers fit together."""
        ...

    def declared_group(self, description: Any) -> str:
        """The name by which it checks calls itself; empty for servers that know no groups."""
        ...

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[bool]:
        """Whether the service is SERVING, at once and at each change. Raises grpc.aio.AioRpcError."""
        ...


class Replica(Generic[Description]):
    """A channel to one address, watched from `start` to `close`.

    It is ready from when it said that it serves, and described itself, until its health stream says otherwise or ends;
    the stream ends as soon as the connection does, so a process that died is not ready any more.
    """

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel,
        wire: StageWire[Description],
        occupancy: Occupancy,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.channel = channel
        self.call = wire.bind(channel)
        self.occupancy = occupancy
        # What it serves, by version. One at an address is one; behind an address that stands for several, and changes
        # from call to call, those that were met.
        self.versions: dict[str, Description] = {}
        self._doubted: set[str] = set()
        # The stage's name does not stand for it any more: it finishes what is bound to it, and gets no new sources.
        self.leaving = False
        # Calls that have not ended. The last item of a call may be done before, and closing the channel cancels it.
        self.leases = 0
        self._wire = wire
        self._serving = False
        self._failures = 0
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "leaving" if self.leaving else "ready" if self.ready else "not ready"
        return f"<Replica {self.address} {state} in_flight={self.occupancy.in_flight}>"

    @property
    def ready(self) -> bool:
        """Whether it answers calls."""
        return self._serving

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name=f"watch {self.address}")

    async def close(self) -> None:
        """Stop watching and close the channel, which ends its calls."""
        for task in (self._task, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        self._set(serving=False)
        await self.channel.close()

    def hold(self, seconds: float) -> None:
        """Give it nothing for so long."""
        self.occupancy.held_until_s = max(self.occupancy.held_until_s, monotonic() + seconds)

    def failed(self) -> float:
        """A call broke off; returns for how long the replica now gets nothing."""
        seconds = min(LONGEST_HOLD_S, FIRST_HOLD_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.hold(seconds)
        return seconds

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0

    def look_again(self, doubted: str | None = None) -> None:
        """It refused a call for another version: ask what it serves now. Behind one address others may answer.

        Args:
            doubted: a version that was asked for again and again, and is taken to be gone unless it is what answers.
        """
        if doubted is not None:
            self._doubted.add(doubted)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_again(), name=f"describe {self.address}")

    async def _ask_again(self) -> None:
        before = set(self.versions)
        try:
            await self._describe()
        except grpc.aio.AioRpcError as error:
            log.info("%s does not describe itself: %s", self.address, error.code().name)
        for name in self._doubted:
            if len(self.versions) > 1:
                self.versions.pop(name, None)
        self._doubted.clear()
        if set(self.versions) != before:
            self._on_change()

    async def _watch(self) -> None:
        while True:
            try:
                async for serving in self._wire.watch(self.channel):
                    before = set(self.versions)
                    if serving:
                        await self._describe(anew=True)
                    if serving and self._serving and set(self.versions) != before:
                        self._on_change()
                    self._set(serving=serving)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    await self._poll()
            except Exception:
                log.exception("watching %s", self.address)
            self._set(serving=False)
            await asyncio.sleep(WATCH_PAUSE_S)

    async def _describe(self, *, anew: bool = False) -> None:
        description = await self._wire.describe(self.channel, DESCRIBE_TIMEOUT_S)
        if anew:
            self.versions.clear()
        name = self._wire.group(description)
        self.versions[name] = description
        self._doubted.discard(name)
        self.occupancy.workers = self._wire.workers(description)

    async def _poll(self) -> None:
        """For a server without health checks: it serves while it describes itself."""
        try:
            while True:
                await self._describe()
                self._set(serving=True)
                await asyncio.sleep(POLL_S)
        except grpc.aio.AioRpcError as error:
            log.info("%s does not describe itself: %s", self.address, error.code().name)

    def _set(self, *, serving: bool) -> None:
        if serving == self._serving:
            return
        self._serving = serving
        if serving:
            # What it was blamed for lies before its restart.
            self._failures = 0
            self.occupancy.held_until_s = float("-inf")
        log.info("%s %s is %s", self._wire.service, self.address, "ready" if serving else "not ready")
        self._on_change()
