"""The door: who is let in, and for which bytes there is room, is decided before any of a request is read."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from sluiceway_runtime.account import RETRY_AFTER_S, Account, MemoryBudget, Phase, phase_of_request
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import ImageTooLarge, InvalidOption, QueueFull, Unavailable, WrongGroup
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.budget import RECEIVE_COPIES
from sluiceway_runtime.server.entry import REQUEST_BYTES_KEY, Entry, Places
from sluiceway_runtime.server.lifecycle import Lifecycle, State
from sluiceway_runtime.server.security import Security, current_client

__all__ = ["GROUP_KEY", "PRIORITY_KEY", "QUESTIONS", "REQUEST_BYTES_KEY", "Door", "current_account"]

# Metadata of a call, as `error.proto` describes it.
PRIORITY_KEY = "sluiceway-priority"
GROUP_KEY = "sluiceway-group"

# Questions about the server itself, which it answers while it starts and drains, too.
QUESTIONS = (
    *("/Describe", "/Explain", "/Sample", "/Watch"),
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
        self._reading = Places(max(1, min(READING_PLACES, room_bytes // worth_bytes)))
        self._worth_bytes = worth_bytes
        self._questions = Places(QUESTION_PLACES)
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
                largest = declared or min(self._max_message_bytes, int(self._stream_bytes))
                entry.learn(self._learn, largest * RECEIVE_COPIES)
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
