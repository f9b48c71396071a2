"""Whose bytes are here: one budget for a process, one account for each call and each source.

What a server is given to hold (a request that is read, a fetched image, crops on their way, events that nobody reads)
is reserved here first, so that it is a line that grows with the load and never the process.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from enum import IntEnum
from types import TracebackType
from typing import Self

from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.room_line import Line, Waiter

__all__ = [
    "PHASE_SHARES",
    "RETRY_AFTER_S",
    "SMALL_REQUEST_BYTES",
    "Account",
    "MemoryBudget",
    "Phase",
    "phase_of_request",
]

# After a refusal for want of room.
RETRY_AFTER_S = 0.25


class Phase(IntEnum):
    """What bytes are wanted for. Later phases go first and may fill more of the budget.

    So what is far on its way always finds room, and what has not begun waits.
    """

    DOOR = 0
    """A request that is about to be read."""
    FETCH = 1
    """An image that is about to be fetched, and what was made of sources and is not read yet."""
    WORK = 2
    """What a stage is about to answer."""
    SMALL = 3
    """A small request that is about to be read. A line of large ones does not hold it up, nor do images that are
    fetched without end."""


_PHASES = tuple(Phase)
# All by phase or by class.
# Of the whole budget, how much may be in use for bytes of a phase to be given out.
PHASE_SHARES = (0.6, 0.8, 1.0, 1.0)
# What a phase may always use of it, whatever the others hold: images and answers that clients do not take shut the door
# to nobody, and keep nobody's work waiting.
_GUARANTEED_SHARES = (0.15, 0.0, 0.15, 0.05)
# Requests up to this are small: photographs as most clients send them.
SMALL_REQUEST_BYTES = 2**20
# Of the whole budget, what small requests may hold together: less than large ones may, which must not wait for ever.
_SMALL_SHARE = 0.25
# Of that, how much for a class: interactive work finds room that bulk work cannot fill.
_CLASS_SHARES = (1.0, 0.9, 0.75)
# Seconds that an interactive request is older than it is, so to say, when it is compared with one of another class.
_HEAD_START_S = (0.0, 2.0, 10.0)


def phase_of_request(size_bytes: int) -> Phase:
    """In which phase room for a request is asked for."""
    return Phase.SMALL if size_bytes <= SMALL_REQUEST_BYTES else Phase.DOOR


def _no_look() -> None:
    pass


class MemoryBudget:
    """Bytes that a process may hold, for whoever asks.

    Nothing that asks can be asked too much of: in each phase one that wants more than its share is let through when
    nothing else of that phase is here.

    Who waits is served as soon as there is room for it: later phases first, then by age. Of one class the client that
    holds the least goes first, so that one with much to do does not keep the others waiting. Within a phase no other
    waiter of the class, or of one after it, passes the one whose turn it is, however little it wants.

    What is held for something that may never come is lent: whoever finds no room takes it over, from who has waited in
    vain for the longest. If that something comes after all it is counted, room or not. So much may be taken over at a
    time as the whole budget: were all of it to come at once, twice the budget would be here.

    Args:
        total_bytes: all that may be held.
        phase_shares: of it, how much may be in use for bytes of each phase to be given out.
    """

    def __init__(self, total_bytes: int, phase_shares: Sequence[float] = PHASE_SHARES) -> None:
        self.total_bytes = total_bytes
        self._limits = [[total_bytes * share * of for of in _CLASS_SHARES] for share in phase_shares]
        self._guaranteed = [[total_bytes * share * of for of in _CLASS_SHARES] for share in _GUARANTEED_SHARES]
        self._small_limit = total_bytes * _SMALL_SHARE
        self._used = 0
        self._used_in = [0] * len(Phase)
        # By phase and class.
        self._waiting = [[Line() for _ in Priority] for _ in Phase]
        # What clients hold; not of those who hold nothing.
        self._held: dict[Hashable, int] = {}
        # How many there are in all of them; nearly always none.
        self._in_line = 0
        # Accounts whose bytes of a phase are lent, the first of them first; and what others have taken over of whom.
        self._lent: OrderedDict[Account, Phase] = OrderedDict()
        self._owed: dict[Account, int] = {}
        self._owed_bytes = 0
        # Bytes that may still be given back before somebody looks at what the process holds.
        self._until_look = math.inf
        self._look_every = math.inf
        self._look: Callable[[], None] = _no_look

    def __repr__(self) -> str:
        return f"<MemoryBudget used={self._used} of={self.total_bytes} waiting={self.waiting}>"

    @property
    def used_bytes(self) -> int:
        """Bytes that are held or reserved."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return sum(not item.future.done() for lines in self._waiting for line in lines for item in line)

    def account(self, priority: Priority = Priority.NORMAL, client: Hashable = None) -> Account:
        """Open an account; whoever opens it closes it.

        Args:
            priority: the class in which it waits.
            client: whose it is; those of nobody in particular are as of one client.
        """
        return Account(self, priority, client)

    def fits(self, size_bytes: int, phase: Phase, priority: Priority) -> bool:
        """Whether so many bytes could be given out now, were nobody waiting."""
        own_bytes = self._used_in[phase]
        if not own_bytes or own_bytes + size_bytes <= self._guaranteed[phase][priority]:
            return True
        if self._is_full_of_small(size_bytes, phase):
            return False
        return self._used + size_bytes <= self._limits[phase][priority]

    def limit_bytes(self, phase: Phase, priority: Priority) -> int:
        """Up to how much may be in use for bytes to be given out."""
        return int(self._limits[phase][priority])

    def watch_freed(self, every_bytes: int, look: Callable[[], None]) -> None:
        """Call `look` whenever so many bytes more have been given back."""
        self._until_look = self._look_every = every_bytes
        self._look = look

    # The following are for accounts alone.

    def take(self, size_bytes: int, phase: Phase, client: Hashable) -> None:
        """Count bytes, room or not."""
        self._used += size_bytes
        self._used_in[phase] += size_bytes
        if size_bytes:
            self._held[client] = self._held.get(client, 0) + size_bytes

    def try_take(self, size_bytes: int, phase: Phase, priority: Priority, client: Hashable) -> bool:
        """Count bytes if there is room and nobody waits who goes first."""
        if self._in_line and any(self._waiting[phase][: priority + 1]):
            return False
        if not self._find_room(size_bytes, phase, priority):
            return False
        self.take(size_bytes, phase, client)
        return True

    async def wait_and_take(self, size_bytes: int, phase: Phase, priority: Priority, client: Hashable) -> None:
        """Count bytes once there is room."""
        if self.try_take(size_bytes, phase, priority, client):
            return
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.time() + _HEAD_START_S[priority], size_bytes, priority, client, loop.create_future())
        line = self._waiting[phase][priority]
        line.push(waiter)
        self._in_line += 1
        try:
            await waiter.future
        except BaseException:
            if not line.remove(waiter):
                # It was its turn in the moment in which it was cancelled.
                self.give_back(size_bytes, phase, client)
            else:
                # Whom it kept back may go.
                self._in_line -= 1
                self._serve()
            raise

    def lend(self, account: Account, phase: Phase) -> None:
        """What the account holds for the phase is for something that may never come."""
        self._lent[account] = phase
        self._serve()

    def claim(self, account: Account) -> int:
        """It is lent no longer; returns what others have taken over meanwhile."""
        self._lent.pop(account, None)
        owed_bytes = self._owed.pop(account, 0)
        self._owed_bytes -= owed_bytes
        return owed_bytes

    def give_back(self, size_bytes: int, phase: Phase, client: Hashable) -> None:
        """Bytes are free."""
        self._discount(size_bytes, phase, client)
        self._until_look -= size_bytes
        if self._until_look <= 0:
            self._until_look = self._look_every
            self._look()
        self._serve()

    def _discount(self, size_bytes: int, phase: Phase, client: Hashable) -> None:
        self._used -= size_bytes
        self._used_in[phase] -= size_bytes
        if size_bytes:
            self._held[client] -= size_bytes
            if not self._held[client]:
                del self._held[client]

    def _find_room(self, size_bytes: int, phase: Phase, priority: Priority) -> bool:
        """Whether so many bytes can be given out now; takes over what is missing if it is lent."""
        while not self.fits(size_bytes, phase, priority):
            account, lent_phase = next(iter(self._lent.items()), (None, Phase.DOOR))
            if account is None or self._is_full_of_small(size_bytes, phase):
                return False
            lent_bytes = account.held_for(lent_phase)
            if self._owed_bytes + lent_bytes > self.total_bytes:
                return False
            del self._lent[account]
            self._discount(lent_bytes, lent_phase, account.client)
            account.taken_over(lent_phase)
            self._owed[account] = lent_bytes
            self._owed_bytes += lent_bytes
        return True

    def _is_full_of_small(self, size_bytes: int, phase: Phase) -> bool:
        return phase is Phase.SMALL and self._used_in[phase] + size_bytes > self._small_limit

    def _serve(self) -> None:
        if self._in_line:
            for phase in reversed(Phase):
                while self._serve_one(phase):
                    pass

    def _serve_one(self, phase: Phase) -> bool:
        lines = self._waiting[phase]
        heads = [head for line in lines if (head := line.head(self._held)) is not None]
        kept_back = len(lines)
        for waiter in sorted(heads, key=lambda head: (head.at_s, head.priority)):
            if waiter.priority >= kept_back:
                continue
            if self._find_room(waiter.size_bytes, phase, waiter.priority):
                lines[waiter.priority].remove(waiter)
                self._in_line -= 1
                self.take(waiter.size_bytes, phase, waiter.client)
                waiter.future.set_result(None)
                return True
            kept_back = waiter.priority
        return False


class Account:
    """What one call, or one source, holds of a budget. Closing it gives everything back; twice does no harm.

    What has arrived is counted whether there is room or not (`add`); what is about to come waits for room (`reserve`)
    or is refused (`require`). An account that is closed takes nothing more: what arrives late is not counted.
    """

    __slots__ = ("_budget", "_closed", "_held", "_lends", "client", "priority")

    def __init__(self, budget: MemoryBudget, priority: Priority, client: Hashable = None) -> None:
        self._budget = budget
        self._held = [0] * len(Phase)
        self._closed = False
        self._lends = False
        self.client = client
        self.priority = priority

    def __repr__(self) -> str:
        return f"<Account held={self.held_bytes}{' closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds."""
        return sum(self._held)

    async def reserve(self, size_bytes: int, phase: Phase) -> None:
        """Wait for room for so many more bytes. Bound the wait by the deadline; cancelling it takes nothing."""
        if self._closed:
            return
        await self._budget.wait_and_take(size_bytes, phase, self.priority, self.client)
        if self._closed:
            self._budget.give_back(size_bytes, phase, self.client)
        else:
            self._held[phase] += size_bytes

    def require(self, size_bytes: int, phase: Phase) -> None:
        """Take room for so many more bytes now.

        Raises:
            QueueFull: there is none; with the delay after which to try again.
        """
        if not self.try_reserve(size_bytes, phase):
            raise QueueFull(
                "too many bytes are here already",
                metadata={"used_bytes": str(self._budget.used_bytes), "total_bytes": str(self._budget.total_bytes)},
                retry_after_s=RETRY_AFTER_S,
            )

    def try_reserve(self, size_bytes: int, phase: Phase) -> bool:
        """Take room for so many more bytes now, if there is any."""
        if not self._closed:
            if not self._budget.try_take(size_bytes, phase, self.priority, self.client):
                return False
            self._held[phase] += size_bytes
        return True

    def add(self, size_bytes: int, phase: Phase) -> None:
        """Count bytes that are here."""
        if not self._closed:
            self._budget.take(size_bytes, phase, self.client)
            self._held[phase] += size_bytes

    def remove(self, size_bytes: int, phase: Phase) -> None:
        """So many bytes are gone; no more than it holds for that phase."""
        size_bytes = min(size_bytes, self._held[phase])
        if size_bytes:
            self._held[phase] -= size_bytes
            self._budget.give_back(size_bytes, phase, self.client)

    def settle(self, size_bytes: int, phase: Phase) -> None:
        """What was estimated is known now: hold exactly this much for the phase, room or not."""
        difference = size_bytes - self._held[phase]
        if difference > 0:
            self.add(difference, phase)
        else:
            self.remove(-difference, phase)

    def lend(self, phase: Phase) -> None:
        """What it holds for the phase is for something that may never come: others take it over if they need it."""
        if not (self._closed or self._lends):
            self._lends = True
            self._budget.lend(self, phase)

    def claim(self) -> bool:
        """What it lent is needed now. Returns whether it is still here; if not, `add` or `reserve` it anew."""
        if not self._lends:
            return True
        self._lends = False
        return not self._budget.claim(self)

    def close(self) -> None:
        """Give everything back."""
        self._closed = True
        self.claim()
        for phase in _PHASES:
            if self._held[phase]:
                self.remove(self._held[phase], phase)

    # The following are for the budget alone.

    def held_for(self, phase: Phase) -> int:
        """Bytes that it holds for a phase."""
        return self._held[phase]

    def taken_over(self, phase: Phase) -> None:
        """What it held for a phase is another's."""
        self._held[phase] = 0
