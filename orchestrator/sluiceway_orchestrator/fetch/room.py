"""Room for what is fetched, in the account of its source."""

from __future__ import annotations

from collections import OrderedDict

from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.priority import Priority

__all__ = ["Estimate", "Estimates", "Holding", "Room"]

# What an answer of unknown size is taken for until one has come.
FIRST_BYTES = 2**20
# How much a smaller answer lowers what is expected of the next one.
LOWERED = 0.1
# Strangers choose the hosts: those of late are known.
MAX_HOSTS = 1024


class Estimate:
    """How large the next answer may be, learnt from those before: up at once, down slowly."""

    __slots__ = ("_max_bytes", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.size_bytes = min(FIRST_BYTES, max_bytes)

    def __repr__(self) -> str:
        return f"<Estimate {self.size_bytes}>"

    def learn(self, size_bytes: int) -> None:
        """An answer was so large."""
        lowered = round(self.size_bytes + LOWERED * (size_bytes - self.size_bytes))
        self.size_bytes = min(max(size_bytes, lowered), self._max_bytes)


class Estimates:
    """One estimate for each host of the last that were asked."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._hosts: OrderedDict[str, Estimate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def of(self, host: str) -> Estimate:
        """That of a host."""
        estimate = self._hosts.setdefault(host, Estimate(self._max_bytes))
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return estimate


class Room:
    """What one call holds of an account that it shares with the others of its source. `release` ends it.

    A call for values alone never waits for room: the image of its source may be here already and wait for it, and all
    the room there is may be taken by images that wait so. Such answers are counted while they are here.

    Args:
        waits: whether what is about to come waits for room.
        taken_bytes: what whoever made this has taken for it already; the first answer has that.
    """

    __slots__ = ("_account", "_released", "_spare_bytes", "held_bytes", "waits")

    def __init__(self, account: Account, *, waits: bool = True, taken_bytes: int = 0) -> None:
        self._account = account
        self._released = False
        self._spare_bytes = taken_bytes
        self.held_bytes = taken_bytes
        self.waits = waits

    def __repr__(self) -> str:
        return f"<Room held={self.held_bytes}{' waits' if self.waits else ''}>"

    @property
    def priority(self) -> Priority:
        """Of the account."""
        return self._account.priority

    async def reserve(self, size_bytes: int) -> None:
        """Have so many bytes for the first answer; it waits for no more than that, what is beyond it is counted."""
        self._spare_bytes += await self._reserved(size_bytes)
        self.waits = False

    async def take(self, size_bytes: int) -> Holding:
        """Room for an answer that is about to come. Bound the wait by the deadline; cancelling it takes nothing."""
        if self.waits:
            return Holding(self, await self._reserved(size_bytes))
        holding = Holding(self, self._spare_bytes)
        self._spare_bytes = 0
        holding.settle(size_bytes)
        return holding

    def change(self, by_bytes: int) -> None:
        """For holdings: bytes came, or went. Nothing is counted once the room is released."""
        if self._released:
            return
        self.held_bytes += by_bytes
        if by_bytes > 0:
            self._account.add(by_bytes, Phase.FETCH)
        elif by_bytes < 0:
            self._account.remove(-by_bytes, Phase.FETCH)

    def release(self) -> None:
        """Give all of it back, whatever holds it; twice does no harm."""
        self.change(-self.held_bytes)
        self._released = True
        self._spare_bytes = 0

    async def _reserved(self, size_bytes: int) -> int:
        await self._account.reserve(size_bytes, Phase.FETCH)
        if self._released:
            self._account.remove(size_bytes, Phase.FETCH)
            return 0
        self.held_bytes += size_bytes
        return size_bytes


class Holding:
    """The part of a room that one answer has."""

    __slots__ = ("_room", "size_bytes")

    def __init__(self, room: Room, size_bytes: int) -> None:
        self._room = room
        self.size_bytes = size_bytes

    def settle(self, size_bytes: int) -> None:
        """It is this large, room or not."""
        self._room.change(size_bytes - self.size_bytes)
        self.size_bytes = size_bytes

    def release(self) -> None:
        """It is gone."""
        self.settle(0)
