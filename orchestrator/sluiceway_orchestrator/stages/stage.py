"""One stage as a whole: its replicas, and the line of work that waits for them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc.aio
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, QueueFull, SluicewayError, Unavailable
from sluiceway_runtime.priority import Priority

from sluiceway_orchestrator.backlog import Ageing, Backlog, Entry
from sluiceway_orchestrator.stages.balancer import Occupancy, Report, choose
from sluiceway_orchestrator.stages.replica import Replica, StageWire
from sluiceway_orchestrator.stages.resolver import Lookup, Target, system_lookup
from sluiceway_orchestrator.stages.retry import RetryBudget

__all__ = ["Lease", "Stage", "StageSettings", "Ticket"]

log = logging.getLogger(__name__)

Description = TypeVar("Description")

# While work waits and no replica is there, the name is resolved this often, so that a stage that is being started
# (from zero) is used at once.
EAGER_RESOLVE_S = 0.3
# A stage behind a balancer of gRPC's own is many replicas behind one channel; its refusals bound it, not this.
PASSED_ON_WINDOW = 4096
# Told this much before the deadline that there is no replica, the client still hears why.
UNAVAILABLE_NOTICE_S = 0.1
UNAVAILABLE_NOTICE_PART = 0.1
# After a refusal (queue full) without a hint of the replica's own.
BUSY_HOLD_S = 0.02
LONGEST_BUSY_HOLD_S = 1.0
# Calls that may break off under one request: it is given up before it has ended every replica.
MAX_BREAKS = 4


@dataclass(frozen=True, slots=True)
class Ticket:
    """For whom a stage works.

    Attributes:
        arrived_s: monotonic time at which the source was accepted; its age in every line.
        request_id: goes with each call, for logs.
    """

    client: Hashable
    priority: Priority
    deadline: Deadline
    arrived_s: float
    request_id: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call to a stage carries."""
        return (("x-request-id", self.request_id),)


@dataclass(frozen=True, slots=True)
class StageSettings:
    """See `OrchestratorConfig`."""

    resolve_interval_s: float = 2.0
    initial_window: int = 4
    retry_ratio: float = 0.2
    # Enough for everything in flight with a replica that dies.
    retry_reserve: int = 512
    ageing: Ageing = field(default_factory=Ageing)


class Lease(Generic[Description]):
    """A place at a replica, for one call. Leaving the `with` block gives it back."""

    __slots__ = ("_cost", "_stage", "replica")

    def __init__(self, stage: Stage[Description], replica: Replica[Description], cost: int) -> None:
        self._stage = stage
        self._cost = cost
        self.replica = replica
        replica.leases += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(self._cost)
        self.replica.leases -= 1

    def settle(self, items: int) -> None:
        """So many of the items are done; their places are free."""
        items = min(items, self._cost)
        self._cost -= items
        self.replica.occupancy.in_flight -= items
        if items:
            self._stage.pump()

    def report(self, report: Report) -> None:
        """The replica answered, and said how busy it is."""
        self.replica.succeeded()
        self.replica.occupancy.reported(report, monotonic())


class Stage(Generic[Description]):
    """Hands out places at the replicas of one stage; whoever finds none waits here, and not in a replica's queue."""

    def __init__(
        self,
        name: str,
        target: str,
        wire: StageWire[Description],
        settings: StageSettings,
        *,
        open_channel: Callable[[str, str | None], grpc.aio.Channel],
        lookup: Lookup = system_lookup,
        certificates: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.target = Target.parse(target)
        self.retries = RetryBudget(settings.retry_ratio, settings.retry_reserve)
        self._wire = wire
        self._settings = settings
        self._open_channel = open_channel
        self._lookup = lookup
        self._certificates = certificates
        self._opened_with = certificates()
        self._replicas: dict[str, Replica[Description]] = {}
        self._usable: tuple[Replica[Description], ...] = ()
        self._backlog: Backlog[asyncio.Future[Lease[Description]]] = Backlog(settings.ageing)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_resolver = asyncio.Event()
        self._changed = asyncio.Event()
        self._pump_timer: asyncio.TimerHandle | None = None
        self._pump_at_s = math.inf
        self._last_description: Description | None = None

    def __repr__(self) -> str:
        return f"<Stage {self.name} {list(self._replicas.values())} {self._backlog}>"

    @property
    def replicas(self) -> tuple[Replica[Description], ...]:
        """Those that the name stands for now."""
        return tuple(replica for replica in self._replicas.values() if not replica.leaving)

    @property
    def backlog_items(self) -> int:
        """Images or crops that wait for a replica: what a stage is scaled by, from zero too."""
        return self._backlog.cost

    @property
    def is_there(self) -> bool:
        """Whether a replica takes work."""
        return bool(self._usable)

    @property
    def is_full(self) -> bool:
        """Whether every worker has something to do, and so more work would only wait."""
        return bool(self._backlog) or sum(replica.occupancy.in_flight for replica in self._usable) >= sum(
            replica.occupancy.capacity for replica in self._usable
        )

    @property
    def description(self) -> Description | None:
        """What a replica that is ready says of the stage; None while there is none."""
        return next((replica.description for replica in self._usable), None)

    @property
    def last_description(self) -> Description | None:
        """What the stage last said of itself; stays while it is scaled to zero."""
        return self._last_description

    async def start(self) -> None:
        """Begin to resolve and to watch; does not wait for a replica."""
        if self.target.passed_on:
            self._add(self.target.text, None, PASSED_ON_WINDOW if self.target.text.startswith("xds:") else None)
        else:
            self._spawn(self._resolve_forever(), "resolve")

    async def close(self) -> None:
        """Close every channel. Whoever still waits gets Unavailable."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        await asyncio.gather(*(replica.close() for replica in self._replicas.values()))
        self._replicas.clear()
        while (entry := self._backlog.pop()) is not None:
            if not entry.item.done():
                entry.item.set_exception(Unavailable("shutting down"))

    async def describe(self, deadline: Deadline) -> Description:
        """What the stage says, or last said, of itself; waits for the first replica ever.

        Raises:
            Unavailable: none came within the deadline.
        """
        while (description := self._last_description) is None:
            self._wake_resolver.set()
            try:
                async with asyncio.timeout(_patience_s(deadline)):
                    await self._changed.wait()
            except TimeoutError:
                raise self._no_replica() from None
        return description

    async def lease(
        self, ticket: Ticket, cost: int, *, avoid: Replica[Description] | None = None
    ) -> Lease[Description]:
        """Get a place at a replica, waiting in line for it.

        Args:
            ticket: for whom.
            cost: images or crops.
            avoid: a replica that just failed.

        Raises:
            DeadlineExceeded, Unavailable: no place, or no replica at all, within the deadline.
        """
        if not self._backlog:
            replica = choose(self._usable, ticket.priority, monotonic(), avoid=avoid)
            if replica is not None:
                return self._give(replica, cost)
        future: asyncio.Future[Lease[Description]] = asyncio.get_running_loop().create_future()
        entry = self._backlog.push(
            future, client=ticket.client, priority=ticket.priority, cost=cost, now_s=ticket.arrived_s
        )
        self.pump()
        if not self._usable:
            self._wake_resolver.set()
        try:
            async with asyncio.timeout(_patience_s(ticket.deadline)):
                return await future
        except BaseException as error:
            self._backlog.discard(entry)
            if future.done() and not future.cancelled() and future.exception() is None:
                # The place came at the same moment as the end of the wait.
                with future.result():
                    pass
            if not isinstance(error, TimeoutError):
                raise
            if self._usable:
                raise DeadlineExceeded(f"the time ran out in the queue of {self.name}") from None
            raise self._no_replica() from None

    def recover(self, lease: Lease[Description], error: SluicewayError, attempt: int, *, named: bool) -> bool:
        """Decide about a call that a replica did not answer, and leave that replica alone for a while.

        Args:
            lease: where it was.
            error: why it failed.
            attempt: how many calls were broken off for this request so far, this one included.
            named: whether the replica itself refused it (so that it certainly did no work), rather than the connection
                to it breaking.

        Returns:
            Whether to try again. Refusals cost nothing and wait in line; breaks cost a token of the retry budget.
        """
        if named and isinstance(error, QueueFull):
            lease.replica.hold(min(error.retry_after_s or BUSY_HOLD_S, LONGEST_BUSY_HOLD_S))
            return True
        lease.replica.failed()
        return named or (attempt < MAX_BREAKS and self.retries.spend())

    def pump(self) -> None:
        """Give waiting work to replicas that have room."""
        if not self._backlog:
            return
        now_s = monotonic()
        chosen: list[Replica[Description]] = []

        def fits(entry: Entry[asyncio.Future[Lease[Description]]]) -> bool:
            replica = choose(self._usable, entry.priority, now_s)
            if replica is not None:
                chosen.append(replica)
            return replica is not None

        while (entry := self._backlog.pop(fits)) is not None:
            replica = chosen.pop()
            if not entry.item.done():
                entry.item.set_result(self._give(replica, entry.cost))
        held = [r.occupancy.held_until_s for r in self._usable if r.occupancy.held_until_s > now_s]
        if self._backlog and held and min(held) < self._pump_at_s:
            # Nothing else wakes the line when the only replica with room is one that asked to be left alone.
            if self._pump_timer is not None:
                self._pump_timer.cancel()
            self._pump_at_s = min(held)
            self._pump_timer = asyncio.get_running_loop().call_later(min(held) - now_s + 0.001, self._pump_later)

    def _pump_later(self) -> None:
        self._pump_timer, self._pump_at_s = None, math.inf
        self.pump()

    def _give(self, replica: Replica[Description], cost: int) -> Lease[Description]:
        replica.occupancy.took(cost, monotonic())
        return Lease(self, replica, cost)

    def _no_replica(self) -> Unavailable:
        return Unavailable(f"no replica of {self.name} is ready", retry_after_s=1.0)

    # Replicas coming and going.

    async def _resolve_forever(self) -> None:
        while True:
            try:
                await self._resolve()
            except Exception:
                log.exception("resolving %s", self.target.text)
            self._wake_resolver.clear()
            await asyncio.sleep(EAGER_RESOLVE_S)
            rest_s = self._settings.resolve_interval_s - EAGER_RESOLVE_S
            if rest_s > 0 and (self._usable or not self._backlog):
                try:
                    async with asyncio.timeout(rest_s):
                        await self._wake_resolver.wait()
                except TimeoutError:
                    pass

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
        log.info("certificates have changed: connecting to %s anew", self.name)
        for address, replica in list(self._replicas.items()):
            if not replica.leaving:
                former = f"{address} ({id(replica)})"
                self._replicas[former] = self._replicas.pop(address)
                replica.leaving = True
                self._spawn(self._retire(former, replica), f"retire {former}")

    def _add(self, address: str, name: str | None, fixed_window: int | None) -> None:
        occupancy = Occupancy(self._settings.initial_window, fixed_window)
        replica = Replica(address, self._open_channel(address, name), self._wire, occupancy, self._on_change)
        self._replicas[address] = replica
        replica.start()

    async def _retire(self, address: str, replica: Replica[Description]) -> None:
        """Close a replica that left the name, once its calls are done."""
        while replica.leases:
            await asyncio.sleep(EAGER_RESOLVE_S)
            if not replica.leaving:
                return
        del self._replicas[address]
        await replica.close()

    def _on_change(self) -> None:
        self._usable = tuple(replica for replica in self._replicas.values() if replica.ready)
        if self._usable:
            self._last_description = self._usable[0].description
        # Wakes whoever waits now; the next wait is for the next change.
        self._changed.set()
        self._changed.clear()
        self.pump()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _patience_s(deadline: Deadline) -> float:
    """How long to wait for a place, so that the client still hears why there was none."""
    remaining_s = max(0.0, deadline.remaining_s())
    return remaining_s - min(UNAVAILABLE_NOTICE_S, UNAVAILABLE_NOTICE_PART * remaining_s)
