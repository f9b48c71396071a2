"""Room in an account that several calls share: exactly what was taken is given back, whatever happens."""

from __future__ import annotations

import asyncio
import random

import pytest
from sluiceway_orchestrator.fetch.room import MAX_HOSTS, Estimate, Estimates, Room
from sluiceway_orchestrator.fetch.slots import Slots
from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.priority import Priority

MIB = 2**20


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_an_estimate_starts_at_a_mebibyte_goes_up_at_once_and_down_slowly() -> None:
    estimate = Estimate(32 * MIB)
    assert estimate.size_bytes == MIB
    estimate.learn(20 * MIB)
    assert estimate.size_bytes == 20 * MIB
    estimate.learn(10 * MIB)
    assert estimate.size_bytes == 19 * MIB
    for _ in range(200):
        estimate.learn(1000)
    assert 1000 <= estimate.size_bytes < 1010
    estimate.learn(100 * MIB)
    assert estimate.size_bytes == 32 * MIB, "what is larger is refused"
    assert Estimate(1000).size_bytes == 1000


def test_estimates_are_kept_for_the_hosts_of_late() -> None:
    estimates = Estimates(32 * MIB)
    estimates.of("kept").learn(5 * MIB)
    for number in range(2 * MAX_HOSTS):
        estimates.of(f"{number}")
        assert estimates.of("kept").size_bytes == 5 * MIB
    assert len(estimates) == MAX_HOSTS


async def test_rooms_of_one_account_give_back_what_is_theirs() -> None:
    budget = MemoryBudget(1000)
    account = budget.account()
    first, second = Room(account), Room(account)
    held = await first.take(100)
    other = await second.take(200)
    held.settle(150)
    other.settle(50)
    assert (account.held_bytes, first.held_bytes, second.held_bytes) == (200, 150, 50)
    first.release()
    first.release()
    held.release()
    held.settle(500)
    assert account.held_bytes == 50, "what is told of a room that is released does not touch others"
    second.release()
    assert budget.used_bytes == 0


async def test_a_room_that_does_not_wait_has_what_was_taken_before_and_counts_the_rest() -> None:
    budget = MemoryBudget(1000)
    account = budget.account()
    await account.reserve(700, Phase.FETCH)
    room = Room(account, waits=False, taken_bytes=700)
    first = await room.take(500)
    assert account.held_bytes == 500
    second = await room.take(5000)
    assert account.held_bytes == 5500
    first.release()
    second.release()
    assert account.held_bytes == 0


async def test_a_wait_that_ends_after_the_release_keeps_nothing() -> None:
    budget = MemoryBudget(1000)
    other, account = budget.account(), budget.account()
    await other.reserve(600, Phase.FETCH)
    room = Room(account)
    waiting = asyncio.create_task(room.take(500))
    await settle()
    assert not waiting.done()
    room.release()
    other.close()
    assert (await waiting).size_bytes == 0
    assert budget.used_bytes == 0


async def test_room_is_given_in_order_and_small_ones_do_not_starve_a_large_one() -> None:
    budget = MemoryBudget(1000)
    account = budget.account(Priority.INTERACTIVE)
    rooms = [Room(account) for _ in range(3)]
    first = await rooms[0].take(600)
    second = asyncio.create_task(rooms[1].take(400))
    small = asyncio.create_task(rooms[2].take(100))
    await settle()
    assert not second.done()
    assert not small.done()
    first.settle(300)
    await settle()
    assert second.done()
    assert small.done()
    for room in rooms:
        room.release()
    assert budget.used_bytes == 0


async def test_more_than_there_is_is_let_through_alone() -> None:
    budget = MemoryBudget(100)
    room = Room(budget.account())
    await room.take(10**9)
    room.release()
    assert budget.used_bytes == 0


async def test_a_wait_that_is_cancelled_keeps_nothing() -> None:
    source = random.Random(11)
    budget = MemoryBudget(100)
    accounts = [budget.account(priority) for priority in Priority]
    running: set[asyncio.Task[None]] = set()

    async def work() -> None:
        room = Room(source.choice(accounts))
        try:
            holding = await room.take(source.randrange(1, 80))
            for _ in range(source.randrange(3)):
                await asyncio.sleep(0)
                holding.settle(source.randrange(80))
        finally:
            room.release()

    for _ in range(3000):
        task = asyncio.create_task(work())
        running.add(task)
        task.add_done_callback(running.discard)
        if running and source.random() < 0.4:
            source.choice(list(running)).cancel()
        if source.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*running, return_exceptions=True)
    assert (budget.used_bytes, budget.waiting) == (0, 0)


@pytest.mark.parametrize("total", [1, 2, 64])
async def test_calls_for_images_get_every_slot_and_no_more(total: int) -> None:
    budget = MemoryBudget(10**6)
    account = budget.account()
    slots, expected, go_on = Slots(total), Estimate(500), asyncio.Event()
    running = 0

    async def image() -> None:
        nonlocal running
        room = Room(account)
        async with slots.slot(room, expected):
            running += 1
            await go_on.wait()
            running -= 1
        room.release()

    images = [asyncio.create_task(image()) for _ in range(total + 5)]
    await settle()
    assert running == total
    # Whoever watches is told; one that gives up waits no more, and one that is cancelled at work has no slot any more.
    assert (slots.in_flight, slots.waiting) == (total, 5)
    images.pop().cancel()
    images.pop(0).cancel()
    await settle()
    assert (slots.in_flight, slots.waiting) == (total, 3)
    go_on.set()
    await asyncio.gather(*images)
    assert (slots.in_flight, slots.waiting) == (0, 0)
    account.close()
    assert budget.used_bytes == 0


@pytest.mark.parametrize("total", [1, 2, 3])
async def test_a_call_that_does_not_wait_for_room_always_finds_a_slot_in_time(total: int) -> None:
    """All the room is taken; calls for images wait for it, and one for values gets its slot nevertheless."""
    budget = MemoryBudget(1000)
    other, account = budget.account(), budget.account()
    await other.reserve(700, Phase.FETCH)
    slots, expected = Slots(total), Estimate(500)

    async def image() -> None:
        room = Room(account)
        async with slots.slot(room, expected):
            await room.take(500)
        room.release()

    images = [asyncio.create_task(image()) for _ in range(5)]
    await settle()
    async with asyncio.timeout(10), slots.slot(Room(account, waits=False), expected):
        pass
    assert not any(task.done() for task in images)
    other.close()
    await asyncio.wait_for(asyncio.gather(*images), 10)
    assert budget.used_bytes == 0


async def test_calls_in_line_for_one_slot_keep_no_room_but_for_the_first_of_them() -> None:
    budget = MemoryBudget(10_000)
    account = budget.account()
    slots, expected, go_on = Slots(1), Estimate(500), asyncio.Event()

    async def image() -> None:
        room = Room(account)
        try:
            async with slots.slot(room, expected):
                await go_on.wait()
        finally:
            room.release()

    images = [asyncio.create_task(image()) for _ in range(8)]
    await settle()
    assert account.held_bytes == 2 * 500
    for task in images[1:4]:
        task.cancel()
    go_on.set()
    await asyncio.gather(*images, return_exceptions=True)
    assert account.held_bytes == 0


@pytest.mark.parametrize("total", [1, 2])
async def test_bulk_work_that_waits_for_room_does_not_hold_up_interactive_work(total: int) -> None:
    budget = MemoryBudget(1000)
    other = budget.account()
    await other.reserve(700, Phase.FETCH)
    slots, expected = Slots(total), Estimate(50)

    async def image(priority: Priority) -> None:
        room = Room(budget.account(priority))
        async with slots.slot(room, expected):
            await room.take(50)
        room.release()

    bulk = [asyncio.create_task(image(Priority.BULK)) for _ in range(4)]
    await settle()
    await asyncio.wait_for(image(Priority.INTERACTIVE), 10)
    assert not any(task.done() for task in bulk)
    other.close()
    await asyncio.gather(*bulk)
    assert budget.used_bytes == 0
