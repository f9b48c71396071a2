"""Any number of accounts, in any order: no byte is lost, and nobody waits while there is room."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from sluiceway_runtime.account import Account, MemoryBudget, Phase
from sluiceway_runtime.priority import Priority

DOOR, FETCH, WORK, _ = Phase


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


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
