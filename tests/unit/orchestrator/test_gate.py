"""Admission, and the byte budget: what is held is given back, whatever happens while waiting."""

from __future__ import annotations

import asyncio
import random

import pytest
from sluiceway_orchestrator.gate import Gate
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded
from sluiceway_runtime.priority import Priority


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """Holds slots until told to let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.leave: dict[str, asyncio.Event] = {}

    def enter(self, name: str, client: str, priority: Priority = Priority.NORMAL) -> None:
        self.leave[name] = asyncio.Event()

        async def hold() -> None:
            async with self.gate.slot(client, priority, Deadline.after(600)):
                self.inside.append(name)
                try:
                    await self.leave[name].wait()
                finally:
                    self.inside.remove(name)

        self.tasks[name] = asyncio.create_task(hold())

    async def release(self, name: str) -> None:
        self.leave[name].set()
        await self.tasks[name]
        await settle()


async def test_slots_are_bounded_in_all_and_for_one_client() -> None:
    gate = Gate(total=3, per_client=2)
    holder = Holder(gate)
    for name in ("x1", "x2", "x3", "y1", "y2"):
        holder.enter(name, name[0])
    await settle()
    assert holder.inside == ["x1", "x2", "y1"]
    assert gate.waiting == 2
    await holder.release("x1")
    # x3 had to wait for a share of its client first; y2 was in the common line before it.
    assert holder.inside == ["x2", "y1", "y2"]
    await holder.release("y1")
    assert holder.inside == ["x2", "y2", "x3"]
    for name in ("x2", "y2", "x3"):
        await holder.release(name)
    assert repr(gate) == "<Gate free=3 waiting=0 clients=0>"


async def test_urgent_sources_enter_first() -> None:
    holder = Holder(Gate(total=1, per_client=10))
    holder.enter("first", "x")
    await settle()
    holder.enter("bulk", "x", Priority.BULK)
    holder.enter("normal", "x")
    holder.enter("interactive", "x", Priority.INTERACTIVE)
    await settle()
    order = []
    for name in ("first", "interactive", "normal", "bulk"):
        order += holder.inside
        await holder.release(name)
    assert order == ["first", "interactive", "normal", "bulk"]


async def test_cancelling_at_any_moment_loses_no_slot() -> None:
    source = random.Random(7)
    gate = Gate(total=4, per_client=3)
    running: set[asyncio.Task[None]] = set()

    async def work(client: str) -> None:
        async with gate.slot(client, source.choice(list(Priority)), Deadline.after(600)):
            for _ in range(source.randrange(4)):
                await asyncio.sleep(0)

    for _ in range(3000):
        task = asyncio.create_task(work(source.choice("abcde")))
        running.add(task)
        task.add_done_callback(running.discard)
        if source.random() < 0.4:
            source.choice(list(running)).cancel()
        if source.random() < 0.6:
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*running, return_exceptions=True)
    assert repr(gate) == "<Gate free=4 waiting=0 clients=0>"


@pytest.mark.parametrize("client", ["the holder", "another"])
async def test_the_wait_for_a_slot_ends_with_the_deadline(client: str) -> None:
    gate = Gate(total=1, per_client=1)
    async with gate.slot("the holder", Priority.NORMAL, Deadline.after(600)):
        async with asyncio.timeout(30):
            with pytest.raises(DeadlineExceeded, match="line for admission"):
                async with gate.slot(client, Priority.NORMAL, Deadline.after(0.01)):
                    pass
        assert gate.waiting == 0
    assert repr(gate) == "<Gate free=1 waiting=0 clients=0>"
