"""The calls that came to a server, as they end: when they came, were let in and ended, and why they failed."""

from __future__ import annotations

import contextvars
from typing import NamedTuple

from sluiceway_runtime.errors import Internal, SluicewayError
from sluiceway_runtime.recorder.ring import MOST_REQUESTS, Ring

__all__ = ["CallLog", "CallRow", "current_call", "fault_of"]

# Of all rows of a log, for each: that of a call that succeeded takes about 110.
CALL_BYTES = 256
# Of a message that is remembered.
MESSAGE_CHARACTERS = 300

# The number of the call that is being served; 0 outside of calls.
current_call: contextvars.ContextVar[int] = contextvars.ContextVar("call_number", default=0)


class CallRow(NamedTuple):
    """One call. Times are of this server's monotonic clock.

    Attributes:
        number: counts the calls of this server.
        method: its name, without that of its service.
        admitted_s: when it was let in; 0 where it was not.
        code: name of its gRPC status.
        reason, message: of its error; empty where it has none.
        story: of the item that failed, as a pool tells it; mostly empty.
    """

    number: int
    method: str
    request_id: str
    started_s: float
    admitted_s: float
    ended_s: float
    code: str
    reason: str = ""
    message: str = ""
    story: str = ""


class CallLog:
    """The latest calls."""

    def __init__(self, most: int = MOST_REQUESTS) -> None:
        self._most = most
        self._ring = Ring(most, most * CALL_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return len(self._ring)

    def begin(self) -> int:
        """A call comes; returns its number, which is that of its task from now on."""
        self._count += 1
        current_call.set(self._count)
        return self._count

    def ended(self, row: tuple[object, ...]) -> None:
        """A call has ended: the fields of a `CallRow` in their order."""
        if self._most:
            self._ring.add(row)

    def of(self, request_id: str) -> list[CallRow]:
        """Calls of a request, in the order of their ends."""
        return [call for row in self._ring.holding(request_id) if (call := CallRow(*row)).request_id == request_id]

    @property
    def oldest_s(self) -> float | None:
        """When the oldest call came that is remembered, None if none is."""
        oldest = self._ring.oldest
        return CallRow(*oldest).started_s if oldest is not None else None


def fault_of(error: BaseException) -> tuple[str, str, str]:
    """Reason, message and story of what a call ended with, as rows have them."""
    if isinstance(error, SluicewayError):
        return error.reason, error.message[:MESSAGE_CHARACTERS], error.metadata.get("story", "")
    # Of anything else no more than its caller hears.
    return (Internal.reason, "internal error", "") if isinstance(error, Exception) else ("CANCELLED", "", "")
