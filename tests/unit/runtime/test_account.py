"""Bytes and whose they are: what is given out, to whom first, and that all of it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
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


SIZES = st.sampled_from((0, 1, 100, 300, 500, 700, 1500))
PHASES = st.sampled_from((DOOR, DOOR, DOOR, FETCH, WORK))


class Accounts(RuleBasedStateMachine):
    """Any number of accounts that take, wait, give back, are cancelled and are closed, in any order."""

    accounts = Bundle("accounts")
    waits = Bundle("waits")

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.budget = MemoryBudget(1000)
        self.open: list[Account] = []
        self.lent: set[Account] = set()
        self.tasks: list[tuple[asyncio.Task[None], Account, int, Phase]] = []
        # The door is full from the start.
        full = self.budget.account()
        full.add(600, DOOR)
        self.open.append(full)

    def run(self) -> None:
        self.loop.run_until_complete(settled())

    @rule(target=accounts, priority=st.sampled_from(Priority))
    def account(self, priority: Priority) -> Account:
        account = self.budget.account(priority)
        self.open.append(account)
        return account

    @rule(account=accounts, size_bytes=SIZES, phase=PHASES)
    def add(self, account: Account, size_bytes: int, phase: Phase) -> None:
        account.add(size_bytes, phase)

    @rule(account=accounts, size_bytes=SIZES, phase=PHASES)
    def remove(self, account: Account, size_bytes: int, phase: Phase) -> None:
        account.remove(size_bytes, phase)

    @rule(account=accounts, size_bytes=SIZES, phase=PHASES)
    def settle(self, account: Account, size_bytes: int, phase: Phase) -> None:
        account.settle(size_bytes, phase)

    @rule(account=accounts, size_bytes=SIZES, phase=PHASES)
    def require(self, account: Account, size_bytes: int, phase: Phase) -> None:
        held = account.held_bytes
        fits = self.budget.fits(size_bytes, phase, account.priority)
        if account.try_reserve(size_bytes, phase):
            assert fits or self.lent or account not in self.open
        else:
            assert account.held_bytes == held or account in self.lent

    @rule(account=accounts, phase=PHASES)
    def lend(self, account: Account, phase: Phase) -> None:
        account.lend(phase)
        self.lent.add(account)

    @rule(account=accounts)
    def claim(self, account: Account) -> None:
        self.lent.discard(account)
        account.claim()
        assert account.claim(), "once is enough"

    @rule(size_bytes=SIZES)
    def some_of_what_is_there_from_the_start_goes(self, size_bytes: int) -> None:
        self.open[0].remove(size_bytes, DOOR)

    @rule(target=waits, account=accounts, size_bytes=SIZES, phase=PHASES)
    def reserve(self, account: Account, size_bytes: int, phase: Phase) -> asyncio.Task[None]:
        task = self.loop.create_task(account.reserve(size_bytes, phase))
        self.tasks.append((task, account, size_bytes, phase))
        self.run()
        return task

    @rule(task=waits)
    def cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()

    @rule(account=consumes(accounts))
    def close(self, account: Account) -> None:
        account.close()
        self.open.remove(account)
        self.lent.discard(account)

    @invariant()
    def nothing_is_negative(self) -> None:
        """In the midst of things, some may have been given out whose task has not run yet."""
        assert self.budget.used_bytes >= sum(account.held_bytes for account in self.open) >= 0
        assert all(account.held_bytes >= 0 for account in self.open)

    @rule()
    def time_passes(self) -> None:
        """Then nothing is lost, and nobody waits while there is room."""
        self.run()
        assert self.budget.used_bytes == sum(account.held_bytes for account in self.open), "nothing is lost"
        lines = [(account, size, phase) for task, account, size, phase in self.tasks if not task.done()]
        assert self.budget.waiting == len(lines)
        for phase in Phase:
            # Of those that wait in the class that goes first, the one that came first.
            firsts = sorted((item for item in lines if item[2] is phase), key=lambda item: item[0].priority)
            if firsts:
                account, size_bytes, _ = firsts[0]
                assert not self.budget.fits(size_bytes, phase, account.priority)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        # Once all that is held comes back, everybody has had a turn.
        for _ in range(len(self.tasks) + 1):
            for account in self.open:
                for phase in Phase:
                    account.remove(10**9, phase)
            self.run()
        assert all(task.done() for task, *_ in self.tasks)
        for account in self.open:
            account.close()
        assert (self.budget.used_bytes, self.budget.waiting) == (0, 0)
        self.loop.close()


Accounts.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestAccounts = Accounts.TestCase
