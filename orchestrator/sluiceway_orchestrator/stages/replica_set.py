"""The replicas of a stage, as they come and go: what its name stands for is looked up again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import grpc.aio
from sluiceway_runtime.clock import monotonic, next_beat

from sluiceway_orchestrator.stages.balancer import Occupancy
from sluiceway_orchestrator.stages.replica import Replica, StageWire
from sluiceway_orchestrator.stages.resolver import Lookup, Target

__all__ = ["ReplicaSet"]

log = logging.getLogger(__name__)

Description = TypeVar("Description")

# While work waits and no replica is there, the name is resolved this often, so that a stage that is being started
# (from zero) is used at once.
EAGER_RESOLVE_S = 0.3
# A stage behind a balancer of gRPC's own is many replicas behind one channel; its refusals bound it, not this.
PASSED_ON_WINDOW = 4096


class ReplicaSet(Generic[Description]):
    """Channels to every address that a target stands for, from `start` to `close`.

    Args:
        name: of the stage.
        target: where it is.
        wire: its calls.
        on_change: told when a replica becomes ready, or is not any more.
        hurry: whether work waits that no replica takes.
        needed: whether sources are bound to a replica that left, and nobody else could answer them.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        wire: StageWire[Description],
        *,
        resolve_interval_s: float,
        initial_window: int,
        open_channel: Callable[[str, str | None], grpc.aio.Channel],
        lookup: Lookup,
        certificates: Callable[[], object],
        on_change: Callable[[], None],
        hurry: Callable[[], bool],
        needed: Callable[[Replica[Description]], bool],
    ) -> None:
        self.target = target
        self._name = name
        self._wire = wire
        self._resolve_interval_s = resolve_interval_s
        self._initial_window = initial_window
        self._open_channel = open_channel
        self._lookup = lookup
        self._certificates = certificates
        self._opened_with = certificates()
        self._on_change = on_change
        self._hurry = hurry
        self._needed = needed
        self._replicas: dict[str, Replica[Description]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ReplicaSet {self._name} {list(self._replicas.values())}>"

    @property
    def here(self) -> tuple[Replica[Description], ...]:
        """Those that the name stands for now."""
        return tuple(replica for replica in self._replicas.values() if not replica.leaving)

    @property
    def ready(self) -> tuple[Replica[Description], ...]:
        """Those that take new sources."""
        # Lists, as each change of any replica asks for all of them.
        return tuple([replica for replica in self._replicas.values() if replica.ready and not replica.leaving])

    @property
    def leaving(self) -> tuple[Replica[Description], ...]:
        """Those that the name does not stand for any more, and that are not done yet."""
        return tuple([replica for replica in self._replicas.values() if replica.leaving])

    async def start(self) -> None:
        """Begin to resolve and to watch; does not wait for a replica."""
        if self.target.passed_on:
            self._add(self.target.text, None, PASSED_ON_WINDOW if self.target.text.startswith("xds:") else None)
        else:
            self._spawn(self._resolve_forever(), "resolve")

    async def close(self) -> None:
        """Close every channel."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(replica.close() for replica in self._replicas.values()))
        self._replicas.clear()

    def look_again(self) -> None:
        """Resolve now, as work waits."""
        self._wake.set()

    async def _resolve_forever(self) -> None:
        while True:
            try:
                await self._resolve()
            except Exception:
                log.exception("resolving %s", self.target.text)
            await self._pause()

    async def _pause(self) -> None:
        """Until the name is resolved again: every so often, and at once where work waits, but not all the time."""
        self._wake.clear()
        now_s = monotonic()
        earliest_s = now_s + EAGER_RESOLVE_S
        beat_s = earliest_s if self._hurry() else next_beat(now_s, self._resolve_interval_s)
        timer = asyncio.get_running_loop().call_at(beat_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        if (early_s := earliest_s - monotonic()) > 0:
            await asyncio.sleep(early_s)

    async def _resolve(self) -> None:
        found = await self.target.resolve(self._lookup)
        self._renew()
        for address, name in found.addresses.items():
            known = self._replicas.get(address)
            if known is None:
                self._add(address, name, None)
            else:
                known.leaving = False
        if found.complete:
            for address, replica in self._replicas.items():
                if address not in found.addresses and not replica.leaving:
                    replica.leaving = True
                    self._spawn(self._retire(address, replica), f"retire {address}")
        self._on_change()

    def _renew(self) -> None:
        """Let go of channels that were opened with certificates of before; the addresses then get new ones.

        A channel keeps the certificate that it was opened with, so without this one that expires ends the stage.
        """
        certificates = self._certificates()
        if certificates is None or certificates == self._opened_with:
            return
        self._opened_with = certificates
        log.info("certificates have changed: connecting to %s anew", self._name)
        for address, replica in list(self._replicas.items()):
            if not replica.leaving:
                former = f"{address} ({id(replica)})"
                self._replicas[former] = self._replicas.pop(address)
                replica.leaving = True
                self._spawn(self._retire(former, replica), f"retire {former}")

    def _add(self, address: str, name: str | None, fixed_window: int | None) -> None:
        occupancy = Occupancy(self._initial_window, fixed_window)
        replica = Replica(address, self._open_channel(address, name), self._wire, occupancy, self._on_change)
        self._replicas[address] = replica
        replica.start()

    async def _retire(self, address: str, replica: Replica[Description]) -> None:
        """Close a replica that left the name, once its calls are done and nothing more will come to it."""
        while replica.leases or self._needed(replica):
            await asyncio.sleep(EAGER_RESOLVE_S)
            if not replica.leaving:
                return
        # An address may have come back and left again, and another be at this already.
        if self._replicas.get(address) is replica:
            del self._replicas[address]
            await replica.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
