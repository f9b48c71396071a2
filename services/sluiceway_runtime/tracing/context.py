"""W3C trace context: which trace a call belongs to, and below which span (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import contextvars
import random
import re
from typing import NamedTuple

__all__ = ["TRACEPARENT_KEY", "TRACESTATE_KEY", "TraceContext", "current_trace", "new_span_id", "parsed"]

TRACEPARENT_KEY = "traceparent"
TRACESTATE_KEY = "tracestate"
# Of a later version there may be more behind it.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
# What is kept of `tracestate`.
STATE_CHARACTERS = 512


class TraceContext(NamedTuple):
    """A span, as others refer to it.

    Attributes:
        sampled: whether the trace is recorded.
        state: `tracestate`, handed on as it came.
    """

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""

    @property
    def traceparent(self) -> str:
        """As the header says it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a call below this span carries."""
        parent = (TRACEPARENT_KEY, self.traceparent)
        return (parent, (TRACESTATE_KEY, self.state)) if self.state else (parent,)

    def below(self) -> TraceContext:
        """A new span of the same trace."""
        return self._replace(span_id=new_span_id())


# Of the call that is being served; None where there are no traces.
current_trace: contextvars.ContextVar[TraceContext | None] = contextvars.ContextVar("trace", default=None)


def new_span_id() -> int:
    """Make one up."""
    return random.getrandbits(64) or 1


def parsed(traceparent: object, tracestate: object = None) -> TraceContext | None:
    """Read the headers of a call; None if there are none, or what they say is none."""
    if not isinstance(traceparent, str) or (found := _TRACEPARENT.fullmatch(traceparent.strip())) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate if isinstance(tracestate, str) and len(tracestate) <= STATE_CHARACTERS else ""
    return TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED), state)
