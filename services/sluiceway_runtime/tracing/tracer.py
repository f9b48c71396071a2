"""What servers use of traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from sluiceway_runtime.tracing.context import TraceContext

__all__ = ["Attribute", "Kind", "Link", "Tracer"]

Attribute = str | int | float | bool
Kind = Literal["server", "client", "internal"]


class Link(NamedTuple):
    """A span that has to do with another one and is not above it."""

    to: TraceContext


class Tracer(Protocol):
    """Decides which traces are recorded, and takes spans that are over."""

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        """The span of a call that comes in, below the one that its caller named, or the first of a new trace."""
        ...

    def span(
        self,
        name: str,
        at: TraceContext,
        parent_id: int,
        begun_s: float,
        ended_s: float,
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
        error: str = "",
        links: Sequence[Link] = (),
    ) -> None:
        """A span is over.

        Args:
            name: what it was.
            at: itself; sampled.
            parent_id: the span above it; 0 if there is none.
            begun_s: on the monotonic clock of this process.
            ended_s: likewise.
            kind: of the span.
            attributes: of the span.
            error: why it failed; empty if it did not.
            links: to others.
        """
        ...

    def close(self) -> None:
        """Send what is left. May take some seconds; not for an event loop."""
        ...
