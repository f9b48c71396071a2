"""The door: who is let in, and for which bytes there is room, is decided before any of a request is read."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sluiceway_runtime.account import RETRY_AFTER_S, Account, MemoryBudget, Phase, phase_of_request
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import ImageTooLarge, InvalidOption, QueueFull, Unavailable, WrongGroup
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.budget import RECEIVE_COPIES
from sluiceway_runtime.server.lifecycle import Lifecycle, State
from sluiceway_runtime.server.security import Security, current_client

__all__ = ["GROUP_KEY", "PRIORITY_KEY", "QUESTIONS", "REQUEST_BYTES_KEY", "Door", "Entry", "current_account"]

# Metadata of a call, as `error.proto` describes it.
REQUEST_BYTES_KEY = "sluiceway-request-bytes"
PRIORITY_KEY = "sluiceway-priority"
GROUP_KEY = "sluiceway-group"

# Questions about the server itself, which it answers while it starts and drains, too.
QUESTIONS = (
    *("/Describe", "/Sample", "/Watch"),
    *("/ServerLive", "/ServerReady", "/ModelReady", "/ServerMetadata", "/ModelMetadata"),
)
_HEALTH = "/grpc.health.v1.Health/"
_PRIORITIES = {priority.name.lower(): priority for priority in Priority}

# Calls that do not say how large they are, at a time, that are being read.
READING_PLACES = 4
# Of questions that do not say it; they are empty, so their places are worth nothing and never wait for bytes.
QUESTION_PLACES = 2
# So soon a question is there, or its place is another's.
QUESTION_S = 5.0
# Requests that say that they are no larger are not watched while they are read.
SMALL_BYTES = 64 * 2**10
# Those that are no larger than this are given up without a word where they do not come: watching a request so that its
# client can be told costs a twentieth of what the orchestrator does for an image.
MEDIUM_BYTES = 2**20
# What the messages of a stream are taken for until some have been seen.
FIRST_ESTIMATE_BYTES = 64 * 2**10

# Of the call that is being served. What is added to it counts until the call has ended.
current_account: contextvars.ContextVar[Account | None] = contextvars.ContextVar("account", default=None)


class _Places:
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
        if not self._free or self._line:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
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

    __slots__ = ("_declared", "_learn", "_leave", "_places", "_reads", "account", "patience_s", "phase", "silent_s")

    def __init__(self, account: Account, declared: int | None, leave: Callable[[], None]) -> None:
        self._declared = declared
        self._leave: Callable[[], None] | None = leave
        self._learn: Callable[[int], None] | None = None
        self._places: _Places | None = None
        self._reads = False
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
            self.account.settle(max(self.account.held_bytes, size_bytes * RECEIVE_COPIES), Phase.DOOR)
        if self._declared is not None and size_bytes > self._declared:
            raise InvalidOption(
                f"the request has {size_bytes} bytes, and the call said {self._declared}",
                metadata={REQUEST_BYTES_KEY: str(self._declared), "size_bytes": str(size_bytes)},
            )

    def close(self) -> None:
        """The call has ended; twice does no harm."""
        self.account.close()
        self._give_back_place()
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()

    # The following are for the door alone.

    def learn(self, learn: Callable[[int], None]) -> None:
        """What is read are messages of a stream."""
        self._learn = learn

    def try_take(self, places: _Places) -> bool:
        """Take one of the places if it is free."""
        if not places.try_take():
            return False
        self._places = places
        return True

    async def take(self, places: _Places) -> None:
        """Wait for one of the places, and keep it until the request has been read."""
        await places.take()
        self._places = places

    def begin(self, places: _Places) -> None:
        """Its bytes have been reserved as well."""
        places.begin()
        self._reads = True

    def _give_back_place(self) -> None:
        if self._places is not None:
            places, self._places = self._places, None
            if self._reads:
                places.end()
            places.give_back()


class Door:
    """Decides on calls, in this order: is the server ready, who calls, how much, to which group, with how many bytes.

    Args:
        lifecycle: of the server.
        security: who may call.
        budget: for the bytes of requests.
        config: the largest message, and how long a call without a deadline may wait.
        waits: whether calls wait for room. If not they are refused, and tried elsewhere by who sent them.
        group: of the models that are served; empty for any.
        class_of: the class in which a client is served that asks for one.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        security: Security,
        budget: MemoryBudget,
        config: ServerConfig,
        *,
        waits: bool = True,
        group: Callable[[], str] = str,
        class_of: Callable[[str, Priority], Priority] = lambda _, asked: asked,
    ) -> None:
        self._lifecycle = lifecycle
        self._access = security.access
        self._health_is_open = security.config.health_without_token
        self._budget = budget
        self._max_message_bytes = config.max_message_bytes
        self._patience_s = config.default_deadline_s
        self._class_of = class_of
        self._waits = waits
        self._group = group
        worth_bytes = config.max_message_bytes * RECEIVE_COPIES
        # An idle server has room for all of them: who finds none is kept out by what others hold.
        room_bytes = budget.limit_bytes(Phase.DOOR, Priority.NORMAL)
        self._reading = _Places(max(1, min(READING_PLACES, room_bytes // worth_bytes)))
        self._worth_bytes = worth_bytes
        self._questions = _Places(QUESTION_PLACES)
        self._stream_bytes = float(FIRST_ESTIMATE_BYTES)
        self._waiting: set[asyncio.Timeout] = set()

    def identify(self, method: str, metadata: Mapping[str, Any]) -> None:
        """Find out who calls.

        Raises:
            Unauthenticated: no valid token came with the call.
        """
        if self._access.wants_token and not (self._health_is_open and method.startswith(_HEALTH)):
            authorization = metadata.get("authorization")
            current_client.set(self._access.client_of(authorization if isinstance(authorization, str) else None))

    async def admit(self, method: str, metadata: Mapping[str, Any], *, streams: bool) -> Entry:
        """Let a call in, now or when there is room for it; whoever gets the entry closes it.

        gRPC ends the task of a call whose deadline has passed or whose client has left, while it waits, too. One
        without a deadline waits as long as calls without one may take: what is left of a deadline is not known here.

        Args:
            method: full name.
            metadata: of the call.
            streams: whether it has a stream of requests.

        Raises:
            Unavailable: the server is not ready, or stopped while the call waited.
            Unauthenticated: no valid token.
            QueueFull: the client's limits, or no room.
            WrongGroup: other models are served.
            InvalidInput: metadata that makes no sense, or a request that is larger than any may be.
        """
        question = method.endswith(QUESTIONS)
        self._require_ready(question=question)
        self.identify(method, metadata)
        declared = self._declared(metadata, SMALL_BYTES if question else self._max_message_bytes)
        priority = self._class_of(current_client.get(), self._priority(metadata))
        leave = self._access.enter(current_client.get())
        entry = Entry(self._budget.account(priority), declared, leave)
        try:
            self._require_group(metadata)
            if question:
                entry.patience_s = QUESTION_S
                if declared is None and not entry.try_take(self._questions):
                    await self._wait(entry.take(self._questions), question=True)
            elif streams:
                entry.learn(self._learn)
                largest = declared or min(self._max_message_bytes, int(self._stream_bytes))
                await self._reserve(entry.account, largest * RECEIVE_COPIES)
            elif declared is not None:
                if declared > MEDIUM_BYTES:
                    entry.patience_s = self._patience_s
                elif declared > SMALL_BYTES:
                    entry.silent_s = self._patience_s
                if self._waits:
                    # Where nobody waits, there is no line that small ones could pass.
                    entry.phase = phase_of_request(declared)
                await self._reserve(entry.account, declared * RECEIVE_COPIES, entry.phase)
            else:
                entry.patience_s = self._patience_s
                at_once = entry.try_take(self._reading)
                if at_once and entry.account.try_reserve(self._worth_bytes, Phase.DOOR):
                    entry.begin(self._reading)
                else:
                    await self._wait(self._take_place(entry, has_one=at_once))
        except BaseException:
            entry.close()
            raise
        return entry

    def refuse_waiting(self) -> None:
        """Call when the server is no longer ready: who still waits at the door is told."""
        now = asyncio.get_running_loop().time()
        for timeout in self._waiting:
            if not timeout.expired():
                timeout.reschedule(now)

    def _learn(self, size_bytes: int) -> None:
        self._stream_bytes += (size_bytes - self._stream_bytes) / 8

    def _require_ready(self, *, question: bool = False) -> None:
        state = self._lifecycle.state
        if state is not State.READY and not question:
            raise Unavailable(f"the server is {state.value}", retry_after_s=1.0)

    def _require_group(self, metadata: Mapping[str, Any]) -> None:
        wanted = metadata.get(GROUP_KEY)
        if wanted and (own := self._group()) and wanted != own:
            raise WrongGroup("another version is served here", metadata={"group": own})

    @staticmethod
    def _declared(metadata: Mapping[str, Any], most_bytes: int) -> int | None:
        text = metadata.get(REQUEST_BYTES_KEY)
        if text is None:
            return None
        # As many digits as any size of ours has.
        if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 18):
            raise InvalidOption(f"{REQUEST_BYTES_KEY} is the size of the request in bytes, in decimal")
        size_bytes = int(text)
        if size_bytes > most_bytes:
            raise ImageTooLarge(
                f"a request of {size_bytes} bytes is larger than {most_bytes}",
                metadata={"max_message_bytes": str(most_bytes)},
            )
        return size_bytes

    @staticmethod
    def _priority(metadata: Mapping[str, Any]) -> Priority:
        text = metadata.get(PRIORITY_KEY)
        if text is None:
            return Priority.NORMAL
        if text not in _PRIORITIES:
            raise InvalidOption(f"{PRIORITY_KEY} is one of {', '.join(_PRIORITIES)}")
        return _PRIORITIES[text]

    async def _reserve(self, account: Account, size_bytes: int, phase: Phase = Phase.DOOR) -> None:
        if self._waits:
            if not account.try_reserve(size_bytes, phase):
                await self._wait(account.reserve(size_bytes, phase))
        else:
            account.require(size_bytes, phase)

    async def _take_place(self, entry: Entry, *, has_one: bool) -> None:
        """Wait for a place, and for the room that it is worth, for a call that does not say how large it is."""
        if not has_one:
            await entry.take(self._reading)
        if self._waits:
            await entry.account.reserve(self._worth_bytes, Phase.DOOR)
        while not self._waits and not entry.account.try_reserve(self._worth_bytes, Phase.DOOR):
            # Others that are being read will soon be known to be smaller than their places.
            if not self._reading.reading:
                entry.account.require(self._worth_bytes, Phase.DOOR)
            await self._reading.one_read()
        entry.begin(self._reading)

    async def _wait(self, room: Any, *, question: bool = False) -> None:
        try:
            async with asyncio.timeout(self._patience_s) as timeout:
                self._waiting.add(timeout)
                try:
                    await room
                finally:
                    self._waiting.discard(timeout)
        except TimeoutError:
            self._require_ready(question=question)
            raise QueueFull(
                "no room was found for the request in time",
                metadata={"used_bytes": str(self._budget.used_bytes), "total_bytes": str(self._budget.total_bytes)},
                retry_after_s=RETRY_AFTER_S,
            ) from None
        self._require_ready(question=question)
