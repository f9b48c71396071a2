"""One stage as a whole: the versions that it serves, and the lines of work that wait for replicas of each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, Unavailable
from sluiceway_runtime.metrics.waits import Waits
from sluiceway_runtime.priority import Priority

from sluiceway_orchestrator.backlog import Backlog, Entry
from sluiceway_orchestrator.stages.balancer import Fullness, Report, choose
from sluiceway_orchestrator.stages.group import Group, GroupGone
from sluiceway_orchestrator.stages.presence import Presence
from sluiceway_orchestrator.stages.replica import Replica, StageWire
from sluiceway_orchestrator.stages.replica_set import ReplicaSet
from sluiceway_orchestrator.stages.resolver import Lookup, Target, system_lookup
from sluiceway_orchestrator.stages.retry import RetryBudget
from sluiceway_orchestrator.stages.settings import StageSettings
from sluiceway_orchestrator.stages.versions import Versions

__all__ = ["Lease", "Stage", "Ticket"]

Description = TypeVar("Description")

# Told this much before the deadline that there is no replica, the client still hears why.
UNAVAILABLE_NOTICE_S = 0.1
UNAVAILABLE_NOTICE_PART = 0.1


class Ticket(NamedTuple):
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


class Lease(Generic[Description]):
    """A place at a replica, for one call. Leaving the `with` block gives it back.

    Attributes:
        granted_s: when it was had.
        waited_s: how long it was waited for.
    """

    __slots__ = ("_cost", "_stage", "granted_s", "replica", "waited_s")

    def __init__(self, stage: Stage[Description], replica: Replica[Description], cost: int, now_s: float) -> None:
        self._stage = stage
        self._cost = cost
        self.granted_s = now_s
        self.waited_s = 0.0
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
        if report.queue_ms:
            self._stage.pressed()


@dataclass(frozen=True, slots=True, eq=False)
class Place(Generic[Description]):
    """A place in a line.

    Attributes:
        lease: set when it is its turn.
        avoid: a replica that just failed it, and gets it again only if there is no other.
    """

    lease: asyncio.Future[Lease[Description]]
    avoid: Replica[Description] | None


Line = Backlog[Place[Description]]


class Stage(Generic[Description]):
    """Hands out places at the replicas of one stage; whoever finds none waits here, and not in a replica's queue.

    Each version has a line of its own, since work for one is of no use to the replicas of another.

    Attributes:
        versions: those that it serves.
        retries: how many calls may be made again.
        retried: how many were, by why.
        waits: those of calls and of sources, for a replica.
        pressed: called when one begins, or a replica reports that items wait in it.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        target: str,
        wire: StageWire[Description],
        settings: StageSettings,
        *,
        open_channel: Callable[[str, str | None], grpc.aio.Channel],
        lookup: Lookup = system_lookup,
        certificates: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.retries = RetryBudget(settings.retry_ratio, settings.retry_reserve)
        self.retried = {"broke": 0, "full": 0, "leaving": 0, "version": 0}
        self.waits = Waits()
        self.pressed: Callable[[], None] = lambda: None
        self.versions: Versions[Description] = Versions(wire)
        self._ageing = settings.ageing
        self._set = ReplicaSet(
            name,
            Target.parse(target),
            wire,
            resolve_interval_s=settings.resolve_interval_s,
            initial_window=settings.initial_window,
            open_channel=open_channel,
            lookup=lookup,
            certificates=certificates,
            on_change=self._on_change,
            hurry=lambda: not self.is_there and self.backlog_items > 0,
            needed=self.versions.needs,
        )
        self._presence = Presence(name, target, lambda: self.is_there)
        self._usable: tuple[Replica[Description], ...] = ()
        self._lines: dict[str, Line[Description]] = {}
        self._binding = 0
        self._fullness = Fullness()
        self._changed = asyncio.Event()
        self._pump_timer: asyncio.TimerHandle | None = None
        self._pump_at_s = math.inf
        self._closed = False

    def __repr__(self) -> str:
        return f"<Stage {self.name} {self.versions} {self._set} waiting={self.backlog_items}>"

    @property
    def target(self) -> Target:
        """Where it is configured to be."""
        return self._set.target

    @property
    def replicas(self) -> tuple[Replica[Description], ...]:
        """Those that the name stands for now."""
        return self._set.here

    @property
    def leaving(self) -> tuple[Replica[Description], ...]:
        """Those that it does not stand for any more, and that finish what they have."""
        return self._set.leaving

    @property
    def members(self) -> tuple[tuple[Group[Description], tuple[Replica[Description], ...]], ...]:
        """Every version that is served with its ready replicas, the one with the most first.

        While none is served, those that were: a stage that is scaled to zero is known for what it was.
        """
        return self.versions.members

    @property
    def backlog_items(self) -> int:
        """Images or crops that wait for a replica: what a stage is scaled by, from zero too."""
        return self._binding + sum(line.cost for line in self._lines.values())

    @property
    def is_there(self) -> bool:
        """Whether a replica takes work."""
        return bool(self._usable)

    @property
    def is_full(self) -> bool:
        """Whether every worker has something to do, and so more work would only wait."""
        return any(self._lines.values()) or self._fullness.of(self._usable, monotonic())

    def members_of(self, group: Group[Description]) -> tuple[Replica[Description], ...]:
        """The replicas that answer sources of a version now."""
        return self.versions.answering(group.name)

    async def start(self) -> None:
        """Begin to resolve and to watch; does not wait for a replica."""
        self._presence.start()
        await self._set.start()

    async def close(self) -> None:
        """Close every channel. Whoever still waits gets Unavailable."""
        self._closed = True
        self._presence.close()
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        await self._set.close()
        for line in self._lines.values():
            while (entry := line.pop()) is not None:
                if not entry.item.lease.done():
                    entry.item.lease.set_exception(Unavailable("shutting down"))

    def bind_now(self, able: Callable[[Description], bool] = lambda _: True) -> Group[Description] | None:
        """Choose a version for a source by its share of the ready capacity; None while no replica is there.

        Args:
            able: whether a version can do what the source needs; where none can, any is taken, which then says so.
        """
        return self.versions.choose(able)

    async def wait_there(self, deadline: Deadline) -> None:
        """Wait until a replica is there; whoever waits counts in the backlog, by which the stage is scaled.

        Raises:
            Unavailable: none came within the deadline.
        """
        self._binding += 1
        begun_s = monotonic()
        waiting = self.waits.begin(begun_s)
        self.pressed()
        try:
            async with asyncio.timeout(_patience_s(deadline)):
                while not self.versions:
                    self._set.look_again()
                    await self._changed.wait()
        except TimeoutError:
            raise self._no_replica(begun_s) from None
        finally:
            self._binding -= 1
            self.waits.end(waiting, monotonic())

    async def lease(
        self, ticket: Ticket, cost: int, group: Group[Description], *, avoid: Replica[Description] | None = None
    ) -> Lease[Description]:
        """Get a place at a replica of a version, waiting in line for it.

        Args:
            ticket: for whom.
            cost: images or crops.
            group: the version that the source is bound to.
            avoid: a replica that just failed.

        Raises:
            GroupGone: replicas are there, and none of that version.
            DeadlineExceeded, Unavailable: no place, or no replica at all, within the deadline.
        """
        line = self._lines.get(group.name)
        if line is None:
            line = self._lines[group.name] = Backlog(self._ageing)
        if not line:
            members = self.versions.answering(group.name)
            if not members and self._usable:
                raise GroupGone(f"{self.name}: {group.name}")
            replica = choose(members, ticket.priority, monotonic(), avoid=avoid)
            if replica is not None:
                self.waits.none()
                return self._give(replica, cost)
        future: asyncio.Future[Lease[Description]] = asyncio.get_running_loop().create_future()
        entry = line.push(
            Place(future, avoid), client=ticket.client, priority=ticket.priority, cost=cost, now_s=ticket.arrived_s
        )
        self.pump()
        if not self._usable:
            self._set.look_again()
        begun_s = monotonic()
        waiting = self.waits.begin(begun_s)
        self.pressed()
        waited_s = 0.0
        try:
            async with asyncio.timeout(_patience_s(ticket.deadline)):
                lease = await future
        except BaseException as error:
            line.discard(entry)
            if future.done() and not future.cancelled() and future.exception() is None:
                # The place came at the same moment as the end of the wait.
                with future.result():
                    pass
            if not isinstance(error, TimeoutError):
                raise
            if self._usable:
                raise DeadlineExceeded(f"the time ran out in the queue of {self.name}") from None
            raise self._no_replica(begun_s) from None
        finally:
            waited_s = self.waits.end(waiting, monotonic())
        lease.waited_s = waited_s
        return lease

    def pump(self) -> None:
        """Give waiting work to replicas that have room."""
        for name, line in self._lines.items():
            if line:
                self._pump_line(name, line)

    def _pump_line(self, name: str, line: Line[Description]) -> None:
        now_s = monotonic()
        members = self.versions.answering(name)
        chosen: list[Replica[Description]] = []

        def fits(entry: Entry[Place[Description]]) -> bool:
            replica = choose(members, entry.priority, now_s, avoid=entry.item.avoid)
            if replica is not None:
                chosen.append(replica)
            return replica is not None

        while (entry := line.pop(fits)) is not None:
            replica = chosen.pop()
            if not entry.item.lease.done():
                entry.item.lease.set_result(self._give(replica, entry.cost))
        held = [member.occupancy.held_until_s for member in members if member.occupancy.held_until_s > now_s]
        if line and held and min(held) < self._pump_at_s:
            # Nothing else wakes the line when the only replica with room is one that asked to be left alone.
            if self._pump_timer is not None:
                self._pump_timer.cancel()
            self._pump_at_s = min(held)
            self._pump_timer = asyncio.get_running_loop().call_later(min(held) - now_s + 0.001, self._pump_later)

    def _pump_later(self) -> None:
        self._pump_timer, self._pump_at_s = None, math.inf
        self.pump()

    def _give(self, replica: Replica[Description], cost: int) -> Lease[Description]:
        now_s = monotonic()
        replica.occupancy.took(cost, now_s)
        return Lease(self, replica, cost, now_s)

    def _no_replica(self, begun_s: float) -> Unavailable:
        # A client that reads how long it was waited for does not wait as long again.
        waited_ms = round((monotonic() - begun_s) * 1000)
        metadata = {"stage": self.name, "waited_ms": str(waited_ms)}
        return Unavailable(f"no replica of {self.name} is ready", metadata=metadata, retry_after_s=1.0)

    def _on_change(self) -> None:
        """Sort the replicas into versions anew; work for a version that is gone hears of it."""
        if self._closed:
            return
        self._usable = self._set.ready
        self._presence.changed()
        self.versions.sort(self._usable, self._set.leaving)
        if self.versions:
            for name in [name for name in self._lines if not self.versions.answering(name)]:
                self._dismiss(name)
        # Wakes whoever waits now; the next wait is for the next change.
        self._changed.set()
        self._changed.clear()
        self.pump()

    def _dismiss(self, name: str) -> None:
        line = self._lines.pop(name)
        while (entry := line.pop()) is not None:
            if not entry.item.lease.done():
                entry.item.lease.set_exception(GroupGone(f"{self.name}: {name}"))


def _patience_s(deadline: Deadline) -> float:
    """How long to wait for a place, so that the client still hears why there was none."""
    remaining_s = max(0.0, deadline.remaining_s())
    return remaining_s - min(UNAVAILABLE_NOTICE_S, UNAVAILABLE_NOTICE_PART * remaining_s)
