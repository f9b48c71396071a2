"""Bytes and whose they are: what is given out, to whom first, and that all of it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sluiceway_runtime.account import SMALL_REQUEST_BYTES, Account, MemoryBudget, Phase, phase_of_request
from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.priority import Priority

DOOR, FETCH, WORK, SMALL = Phase
INTERACTIVE, NORMAL, BULK = Priority


@pytest.fixture
def budget() -> Iterator[MemoryBudget]:
    """Of 1000 bytes: at the door 600, of which normal calls fill 540 and bulk calls 450."""
    budget = MemoryBudget(1000)
    yield budget
    assert (budget.used_bytes, budget.waiting) == (0, 0), "nothing is left behind"


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def waiting(account: Account, size_bytes: int, phase: Phase = DOOR) -> asyncio.Task[None]:
    return asyncio.create_task(account.reserve(size_bytes, phase))


async def test_interactive_work_finds_room_that_bulk_cannot_fill(budget: MemoryBudget) -> None:
    accounts = {priority: budget.account(priority) for priority in Priority}
    for priority, total in ((BULK, 450), (NORMAL, 540), (INTERACTIVE, 600)):
        accounts[priority].require(total - budget.used_bytes, DOOR)
        with pytest.raises(QueueFull) as caught:
            accounts[priority].require(1, DOOR)
        assert caught.value.retry_after_s
        assert caught.value.metadata == {"used_bytes": str(total), "total_bytes": "1000"}
    for account in accounts.values():
        account.close()


async def test_later_phases_find_room_that_the_door_cannot_fill(budget: MemoryBudget) -> None:
    with budget.account(INTERACTIVE) as account:
        for phase, total in ((DOOR, 600), (FETCH, 800), (WORK, 1000)):
            account.require(total - budget.used_bytes, phase)
            with pytest.raises(QueueFull):
                account.require(1, phase)


@pytest.mark.parametrize("phase", Phase)
async def test_what_is_larger_than_all_there_is_passes_alone(budget: MemoryBudget, phase: Phase) -> None:
    with budget.account() as first, budget.account() as second:
        await first.reserve(5000, phase)
        task = waiting(second, 5000, phase)
        await settled()
        assert not task.done()
        first.close()
        await task


async def test_who_waits_is_served_by_phase_then_by_age(budget: MemoryBudget) -> None:
    holder = budget.account()
    holder.add(1000, DOOR)
    order: list[str] = []
    waiters = {"normal": (NORMAL, DOOR), "interactive": (INTERACTIVE, DOOR), "work": (BULK, WORK), "bulk": (BULK, DOOR)}

    async def wait(name: str, priority: Priority, phase: Phase) -> None:
        with budget.account(priority) as account:
            await account.reserve(1, phase)
            order.append(name)

    # More is in use in that phase than it may always have, or it would be let through.
    holder.add(200, WORK)
    tasks = [asyncio.create_task(wait(name, *which)) for name, which in waiters.items()]
    await settled()
    assert (order, budget.waiting) == ([], 4)
    holder.close()
    await asyncio.gather(*tasks)
    assert order == ["work", "interactive", "normal", "bulk"]


async def test_each_phase_but_fetching_may_use_its_part_whatever_the_others_hold(budget: MemoryBudget) -> None:
    """Images and answers that clients do not take shut the door to nobody, and keep nobody's work waiting."""
    with budget.account() as unread, budget.account() as other:
        unread.add(2000, Phase.FETCH)
        for phase in (DOOR, WORK):
            other.require(100, phase)
            other.require(35, phase)
            with pytest.raises(QueueFull):
                other.require(1, phase)
        with pytest.raises(QueueFull):
            other.require(1, Phase.FETCH)


async def test_of_one_class_the_client_that_holds_the_least_goes_first(budget: MemoryBudget) -> None:
    """One with much to do does not keep another waiting for all of it."""
    order: list[str] = []
    holder = budget.account()
    holder.add(1000, WORK)

    async def work(client: str, number: int) -> None:
        with budget.account(client=client) as account:
            await account.reserve(200, WORK)
            order.append(f"{client}{number}")
            await asyncio.sleep(0)

    many = [asyncio.create_task(work("many", number)) for number in range(20)]
    await settled()
    few = [asyncio.create_task(work("few", number)) for number in range(2)]
    await settled()
    assert (order, budget.waiting) == ([], 22)
    holder.close()
    await asyncio.gather(*many, *few)
    assert order.index("few0") < 4
    assert order.index("few1") < 8
    assert (budget.used_bytes, budget._held) == (0, {})


async def test_a_large_one_is_not_passed_by_small_ones_of_its_class_or_a_later_one(budget: MemoryBudget) -> None:
    holder = budget.account()
    holder.add(100, DOOR)
    large, same, bulk = (budget.account(priority) for priority in (NORMAL, NORMAL, BULK))
    task = waiting(large, 500)
    await settled()
    for account in (same, bulk):
        with pytest.raises(QueueFull):
            account.require(1, DOOR)
    with budget.account(INTERACTIVE) as before:
        before.require(1, DOOR)
    late = waiting(bulk, 1)
    await settled()
    assert not late.done()
    holder.close()
    await task
    assert not late.done(), "there is room for bulk work only below 450"
    large.close()
    await late
    bulk.close()


async def test_small_requests_pass_the_line_of_large_ones_and_images_that_are_fetched(budget: MemoryBudget) -> None:
    with budget.account() as fetched, budget.account() as held, budget.account() as large, budget.account() as small:
        held.add(10, SMALL)
        fetched.require(700, FETCH)
        large.add(1, DOOR)
        task = waiting(large, 200, DOOR)
        await settled()
        small.require(100, SMALL)
        assert not task.done()
        fetched.close()
        await task


async def test_small_requests_together_hold_a_part_and_then_wait(budget: MemoryBudget) -> None:
    with budget.account(INTERACTIVE) as many, budget.account(INTERACTIVE) as one:
        many.require(250, SMALL)
        task = waiting(one, 10, SMALL)
        await settled()
        assert not task.done()
        with budget.account() as large:
            large.require(290, DOOR)
        many.remove(10, SMALL)
        await task


def test_the_size_of_a_request_says_in_which_line_it_is() -> None:
    assert phase_of_request(SMALL_REQUEST_BYTES) is SMALL
    assert phase_of_request(SMALL_REQUEST_BYTES + 1) is DOOR


async def test_when_room_comes_all_who_have_some_go_and_none_passes_one_before_it(budget: MemoryBudget) -> None:
    holder = budget.account()
    holder.add(1000, DOOR)
    small, large, bulk = budget.account(), budget.account(), budget.account(BULK)
    tasks = [waiting(small, 100), waiting(bulk, 10), waiting(large, 100), waiting(large, 300)]
    await settled()
    holder.remove(800, DOOR)
    await settled()
    # In use are 400 now: of the two that are left, the large one does not fit, and keeps the other back.
    assert [task.done() for task in tasks] == [True, False, True, False]
    holder.close()
    await tasks[3]
    small.close()
    large.close()
    await tasks[1]
    bulk.close()


async def test_who_leaves_the_line_lets_the_next_one_go(budget: MemoryBudget) -> None:
    holder = budget.account()
    holder.add(100, DOOR)
    large, small = budget.account(), budget.account()
    tasks = waiting(large, 500), waiting(small, 10)
    await settled()
    tasks[0].cancel()
    await tasks[1]
    assert budget.used_bytes == 110
    for account in (holder, small, large):
        account.close()


async def test_one_cancelled_in_the_moment_of_its_turn_holds_nothing(budget: MemoryBudget) -> None:
    holder, account = budget.account(), budget.account()
    holder.add(1000, DOOR)
    task = waiting(account, 500)
    await settled()
    holder.close()
    assert budget.used_bytes == 500, "it is its turn, and its task has not run"
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert (budget.used_bytes, account.held_bytes) == (0, 0)


async def test_room_that_comes_when_one_has_just_been_cancelled_is_for_the_next(budget: MemoryBudget) -> None:
    holder, first, second = budget.account(), budget.account(), budget.account()
    holder.add(1000, DOOR)
    tasks = waiting(first, 500), waiting(second, 500)
    await settled()
    tasks[0].cancel()
    holder.close()
    await tasks[1]
    assert budget.used_bytes == 500
    second.close()


async def test_a_closed_account_takes_nothing_more(budget: MemoryBudget) -> None:
    holder, account = budget.account(), budget.account()
    holder.add(1000, DOOR)
    late = waiting(account, 10)
    await settled()
    account.close()
    account.close()
    account.add(5, DOOR)
    account.settle(5, WORK)
    account.require(5, DOOR)
    assert account.try_reserve(5000, DOOR)
    await account.reserve(5000, DOOR)
    holder.close()
    await late
    assert account.held_bytes == 0
    assert "closed" in repr(account)


async def test_the_truth_replaces_an_estimate_whichever_is_larger(budget: MemoryBudget) -> None:
    with budget.account() as account:
        account.require(400, DOOR)
        account.settle(150, DOOR)
        assert budget.used_bytes == 150
        account.settle(5000, DOOR)
        assert budget.used_bytes == 5000
        account.remove(6000, DOOR)
        account.remove(1, WORK)
        assert budget.used_bytes == 0


async def test_what_is_lent_is_there_for_who_finds_no_room_and_the_longest_lent_goes_first(
    budget: MemoryBudget,
) -> None:
    idle = [budget.account(INTERACTIVE) for _ in range(3)]
    for account in idle:
        account.require(200, DOOR)
    for account in (idle[1], idle[0]):
        account.lend(DOOR)
    with budget.account(INTERACTIVE) as other:
        assert other.try_reserve(100, DOOR)
        assert [account.held_bytes for account in idle] == [200, 0, 200]
        assert not idle[1].claim()
        assert idle[0].claim()
        late = waiting(other, 250)
        await settled()
        assert not late.done(), "what is claimed, or was never lent, stays where it is"
        idle[0].lend(DOOR)
        await settled()
        assert late.done()
        assert budget.used_bytes == 550
    for account in idle:
        account.close()


async def test_nothing_is_taken_over_that_would_not_help(budget: MemoryBudget) -> None:
    with budget.account() as idle, budget.account() as other:
        idle.require(300, DOOR)
        idle.lend(DOOR)
        other.require(225, SMALL)
        assert not other.try_reserve(26, SMALL), "small requests together have their bound"
        assert idle.claim()


async def test_no_more_is_taken_over_at_a_time_than_there_is(budget: MemoryBudget) -> None:
    """Were all of it to come at once, there would be twice the budget and no more."""
    accounts = []
    for _ in range(20):
        account = budget.account(INTERACTIVE)
        if not account.try_reserve(100, DOOR):
            break
        account.lend(DOOR)
        accounts.append(account)
    assert len(accounts) == 16
    for account in accounts:
        if not account.claim():
            account.add(100, DOOR)
    assert budget.used_bytes == 1600
    for account in accounts:
        account.close()
