"""A call that was let in at the door: the room and the place that it holds while it is read, and until it ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from sluiceway_runtime.account import Account, Phase
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.server.budget import RECEIVE_COPIES

__all__ = ["REQUEST_BYTES_KEY", "Entry", "Places", "by_message"]

# Metadata of a call, as `error.proto` describes it.
REQUEST_BYTES_KEY = "sluiceway-request-bytes"


class Places:
    """A few places, given out in the order in which they are asked for.

    Attributes:
        reading: how many of those who have one are being read.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[asyncio.Future[None]] = deque()
        self._leaving: set[asyncio.Future[None]] = set()
        self.reading = 0

    def try_take(self) -> bool:
        """Take one if one is free and nobody waits for it."""
        if not self._free or self._line:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Wait for one."""
        if self.try_take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._line.remove(turn)
                self._serve()
            else:
                self.give_back()
            raise

    def give_back(self) -> None:
        """One is free again."""
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        # One that is cancelled takes itself out of the line when its task runs.
        while self._free and (turn := next((turn for turn in self._line if not turn.done()), None)) is not None:
            self._free -= 1
            self._line.remove(turn)
            turn.set_result(None)

    def begin(self) -> None:
        """One who has a place is being read from now on."""
        self.reading += 1

    def end(self) -> None:
        """It has been read, or never will be."""
        self.reading -= 1
        for leaving in self._leaving:
            if not leaving.done():
                leaving.set_result(None)

    async def one_read(self) -> None:
        """Return when one of those who are being read no longer is."""
        leaving = asyncio.get_running_loop().create_future()
        self._leaving.add(leaving)
        try:
            await leaving
        finally:
            self._leaving.discard(leaving)


class Entry:
    """A call that was let in: what it holds until it ends.

    Attributes:
        account: its bytes.
        phase: in which they are counted while they are those of the request.
        patience_s: how long its request may take to be read; None where nobody watches.
        silent_s: likewise, where it is given up without a word.
    """

    __slots__ = (
        "_declared", "_in_debt", "_learn", "_leave", "_places", "_reads", "_room_bytes", "account", "patience_s",
        "phase", "silent_s",
    )  # fmt: skip

    def __init__(self, account: Account, declared: int | None, leave: Callable[[], None]) -> None:
        self._declared = declared
        self._leave: Callable[[], None] | None = leave
        self._learn: Callable[[int], None] | None = None
        self._places: Places | None = None
        self._reads = False
        # Of a stream: what it reserves for each message, and whether that was another's when the last one came.
        self._room_bytes = 0
        self._in_debt = False
        self.account = account
        self.phase = Phase.DOOR
        self.patience_s: float | None = None
        self.silent_s: float | None = None

    def received(self, size_bytes: int) -> None:
        """A message has been read, and so large it is.

        Raises:
            InvalidOption: it is larger than the call said.
        """
        if self._learn is None:
            self.account.settle(size_bytes, self.phase)
            self._give_back_place()
        else:
            # A message of a stream is for an account of its own. Here is the room that the next one is read into, which
            # is that of the largest so far.
            self._learn(size_bytes)
            room_bytes = max(self._room_bytes, size_bytes * RECEIVE_COPIES)
            if self.account.claim():
                self.account.settle(room_bytes, Phase.DOOR)
            else:
                self._in_debt = True
                self.account.settle(size_bytes * RECEIVE_COPIES, Phase.DOOR)
            self._room_bytes = room_bytes
        if self._declared is not None and size_bytes > self._declared:
            raise InvalidOption(
                f"the request has {size_bytes} bytes, and the call said {self._declared}",
                metadata={REQUEST_BYTES_KEY: str(self._declared), "size_bytes": str(size_bytes)},
            )

    async def make_room(self) -> None:
        """Return when a further message of the stream may be read: each is read into room that was reserved for it.

        While none comes others may have that room: an idle stream keeps nobody waiting. One whose room was another's as
        a message came is read further when there is room for it again.
        """
        if self._in_debt:
            self._in_debt = False
            self.account.settle(0, Phase.DOOR)
            await self.account.reserve(self._room_bytes, Phase.DOOR)
        self.account.lend(Phase.DOOR)

    def close(self) -> None:
        """The call has ended; twice does no harm."""
        self.account.close()
        self._give_back_place()
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()

    # The following are for the door alone.

    def learn(self, learn: Callable[[int], None], room_bytes: int) -> None:
        """What is read are messages of a stream, the first into so much room."""
        self._learn = learn
        self._room_bytes = room_bytes

    def try_take(self, places: Places) -> bool:
        """Take one of the places if it is free."""
        if not places.try_take():
            return False
        self._places = places
        return True

    async def take(self, places: Places) -> None:
        """Wait for one of the places, and keep it until the request has been read."""
        await places.take()
        self._places = places

    def begin(self, places: Places) -> None:
        """Its bytes have been reserved as well."""
        places.begin()
        self._reads = True

    def _give_back_place(self) -> None:
        if self._places is not None:
            places, self._places = self._places, None
            if self._reads:
                places.end()
            places.give_back()


class _Messages:
    """Those of a stream, for its handler."""

    def __init__(self, entry: Entry, requests: AsyncIterator[Any]) -> None:
        self._entry = entry
        self._requests = requests

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Any:
        await self._entry.make_room()
        return await anext(self._requests)


def by_message(behaviour: Any, entry_of: Callable[[], Entry | None]) -> Any:
    """Let a handler read the messages of a stream each into the room that its call has for it."""

    def serve(requests: AsyncIterator[Any], context: Any) -> Any:
        entry = entry_of()
        return behaviour(requests if entry is None else _Messages(entry, requests), context)

    return serve
