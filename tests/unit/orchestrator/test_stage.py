"""The line in front of a stage: whoever waits in it is woken when a replica can take work again."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc.aio
import pytest
from sluiceway_orchestrator.stages.balancer import Occupancy
from sluiceway_orchestrator.stages.group import Group
from sluiceway_orchestrator.stages.replica import Replica, StageWire
from sluiceway_orchestrator.stages.settings import StageSettings
from sluiceway_orchestrator.stages.stage import Lease, Stage, Ticket
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded
from sluiceway_runtime.priority import Priority
from waiting import until


class NoWire:
    """Replicas that are there and are never called."""

    service = "none"

    def bind(self, channel: grpc.aio.Channel) -> None:
        del channel

    def group(self, description: str) -> str:
        return description

    def declared_group(self, description: str) -> str:
        return description


class ReadyReplica(Replica[str]):
    ready = True


VERSION = Group("v1", "v1", "v1")


def stage_of(count: int) -> tuple[Stage[str], list[Replica[str]]]:
    wire = cast("StageWire[str]", NoWire())
    channel = cast("grpc.aio.Channel", None)
    stage = Stage("none", "detection", "127.0.0.1:9", wire, StageSettings(), open_channel=lambda *_: channel)
    replicas: list[Replica[str]] = [
        ReadyReplica(f"replica {n}", channel, wire, Occupancy(1, 1), lambda: None) for n in range(count)
    ]
    for replica in replicas:
        replica.versions[VERSION.name] = VERSION.name
        stage._set._replicas[replica.address] = replica
    stage._on_change()
    return stage, replicas


async def test_a_shorter_pause_of_another_replica_wakes_the_line_sooner() -> None:
    stage, (long, short) = stage_of(2)
    ticket = Ticket("client", Priority.NORMAL, Deadline.after(30), 0.0, "request")
    long.hold(60)
    busy = await stage.lease(ticket, 1, VERSION)
    assert busy.replica is short
    waiting = asyncio.create_task(stage.lease(ticket, 1, VERSION))
    await until(lambda: stage.backlog_items)
    # It refuses and asks to be left alone for a moment; after this nothing is in flight that would wake the line.
    short.hold(0.02)
    busy.settle(1)
    assert not waiting.done()
    async with asyncio.timeout(20):
        lease = await waiting
    assert lease.replica is short


def ticket() -> Ticket:
    return Ticket("client", Priority.NORMAL, Deadline.after(600), 0.0, "request")


async def in_line(stage: Stage[str], count: int) -> list[asyncio.Task[Lease[str]]]:
    """So many that wait for a place, in this order."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(stage.lease(ticket(), 1, VERSION)))
        await until(lambda number=number: stage.backlog_items > number)
    return tasks


async def test_a_place_that_comes_as_its_caller_leaves_goes_to_the_next_in_line() -> None:
    stage, (replica,) = stage_of(1)
    busy = await stage.lease(ticket(), 1, VERSION)
    leaves, stays = await in_line(stage, 2)
    busy.settle(1)
    # It has the place already, and does not know it yet.
    assert (stage.backlog_items, replica.occupancy.in_flight, leaves.done()) == (1, 1, False)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    lease = await asyncio.wait_for(stays, 30)
    assert replica.occupancy.in_flight == 1
    lease.settle(1)
    assert (stage.backlog_items, replica.occupancy.in_flight) == (0, 0)


async def test_a_place_that_comes_as_the_wait_for_it_ends_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to wait is over in the same turn of the loop in which the place came, right after it."""
    stage, (replica,) = stage_of(1)
    busy = await stage.lease(ticket(), 1, VERSION)
    (late,) = await in_line(stage, 1)
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.call_later(1, busy.settle, 1)
    monkeypatch.setattr(loop, "time", lambda: clock() + 1000)
    with pytest.raises(DeadlineExceeded, match="queue of none"):
        await late
    assert busy._cost == 0, "the place was free"
    assert (stage.backlog_items, replica.occupancy.in_flight, replica.occupancy.sent) == (0, 0, 2)
    monkeypatch.undo()
    lease = await asyncio.wait_for(stage.lease(ticket(), 1, VERSION), 30)
    assert lease.replica is replica


async def test_who_leaves_the_line_before_its_place_comes_takes_none() -> None:
    stage, (replica,) = stage_of(1)
    busy = await stage.lease(ticket(), 1, VERSION)
    leaves, stays = await in_line(stage, 2)
    leaves.cancel()
    # In the same turn: the line still has the one that leaves.
    busy.settle(1)
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await asyncio.wait_for(stays, 30)
    assert (stage.backlog_items, replica.occupancy.in_flight, replica.occupancy.sent) == (0, 1, 2)


async def test_who_was_refused_waits_in_line_for_another_replica() -> None:
    stage, (full, other) = stage_of(2)
    ticket = Ticket("client", Priority.NORMAL, Deadline.after(30), 0.0, "request")
    busy = [await stage.lease(ticket, 1, VERSION), await stage.lease(ticket, 1, VERSION)]
    waiting = asyncio.create_task(stage.lease(ticket, 1, VERSION, avoid=full))
    await until(lambda: stage.backlog_items)
    # Both have room in the same moment, and the one that refused it looks no worse than the other.
    for replica in (full, other):
        replica.occupancy.in_flight = 0
    stage.pump()
    assert (await waiting).replica is other
    for replica in (full, other):
        replica.occupancy.in_flight = 1
    del busy
