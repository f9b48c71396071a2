"""The line in front of a stage: whoever waits in it is woken when a replica can take work again."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc.aio
from sluiceway_orchestrator.priority import Priority
from sluiceway_orchestrator.stages.balancer import Occupancy
from sluiceway_orchestrator.stages.replica import Replica, StageWire
from sluiceway_orchestrator.stages.stage import Stage, StageSettings, Ticket
from sluiceway_runtime.deadline import Deadline


class NoWire:
    """Replicas that are there and are never called."""

    service = "none"

    def bind(self, channel: grpc.aio.Channel) -> None:
        del channel


class ReadyReplica(Replica[None]):
    ready = True


def stage_of(count: int) -> tuple[Stage[None], list[Replica[None]]]:
    wire = cast("StageWire[None]", NoWire())
    channel = cast("grpc.aio.Channel", None)
    stage = Stage("none", "127.0.0.1:9", wire, StageSettings(), open_channel=lambda *_: channel)
    replicas: list[Replica[None]] = [
        ReadyReplica(f"replica {n}", channel, wire, Occupancy(1, 1), lambda: None) for n in range(count)
    ]
    stage._usable = tuple(replicas)
    return stage, replicas


async def test_a_shorter_pause_of_another_replica_wakes_the_line_sooner() -> None:
    stage, (long, short) = stage_of(2)
    ticket = Ticket("client", Priority.NORMAL, Deadline.after(30), 0.0, "request")
    long.hold(60)
    busy = await stage.lease(ticket, 1)
    assert busy.replica is short
    waiting = asyncio.create_task(stage.lease(ticket, 1))
    while not stage.backlog_items:
        await asyncio.sleep(0)
    # It refuses and asks to be left alone for a moment; after this nothing is in flight that would wake the line.
    short.hold(0.02)
    busy.settle(1)
    assert not waiting.done()
    async with asyncio.timeout(20):
        lease = await waiting
    assert lease.replica is short
