"""Notes on one source while it runs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.recorder import fault_of
from sluiceway_runtime.tracing import TraceContext

from sluiceway_orchestrator.story.rows import Fault

__all__ = ["MOST_SPANS", "NOBODYS", "SHORT_S", "Attempt", "Begin", "SourceStory", "unrecorded"]

# Time that is shorter is counted with what comes next: most waits are none.
SHORT_S = 50e-6
# Spans and calls that are remembered of one source; of pages with thousands of calls of APIs the others are counted.
MOST_SPANS = 1000


class Attempt:
    """One call of a stage, from when it was known that it is to be made. Leaving its `with` block ends it.

    Attributes:
        since_s: when what it works on was there.
        asked_s: when a place at a replica was asked for.
        sent_s: when there was one, and it was sent; 0 if there was none.
        ended_s: when its answer was there to its end; 0 while it is not.
        call: number of the call at the replica, as that said; 0 where it did not.
        failed: items that failed by themselves.
        fault: reason, message and story; empty where it did not fail.
        timings: milliseconds as the stage said: queue, compute, total, decode.
    """

    __slots__ = (
        "address",
        "asked_s",
        "call",
        "ended_s",
        "failed",
        "fault",
        "items",
        "sent_s",
        "since_s",
        "stage",
        "step",
        "timings",
        "trace",
    )

    def __init__(self, step: str, stage: str, since_s: float, items: int, *, trace: TraceContext | None = None) -> None:
        self.trace = trace
        self.step = step
        self.stage = stage
        self.since_s = since_s
        self.call = 0
        self.items = items
        self.asked_s = monotonic()
        self.sent_s = self.ended_s = 0.0
        self.address = ""
        self.failed = 0
        self.fault: Fault = ()
        self.timings: tuple[float, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.ended_s:
            self.ended_s = monotonic()
        if error is not None and not self.fault:
            # An exception of another kind decides what is done next, and is no failure.
            known = isinstance(error, SluicewayError) or not isinstance(error, Exception)
            self.fault = fault_of(error) if known else (type(error).__name__, "")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the call carries of its trace, if that is recorded."""
        return self.trace.headers if self.trace is not None and self.trace.sampled else ()

    def sent(self, address: str) -> None:
        """A replica has a place for it."""
        self.address = address
        self.sent_s = monotonic()

    def told(self, failed: int, timings: tuple[float, ...], call: int) -> None:
        """What its answer, or a part of it, said."""
        self.call = call
        self.failed += failed
        self.timings = timings

    def broke(self, error: SluicewayError) -> None:
        """It failed; what becomes of that is decided by others."""
        if not self.ended_s:
            self.ended_s = monotonic()
        self.fault = fault_of(error)

    def row(self) -> tuple[Any, ...]:
        """All of it, in the order of `AttemptRow`."""
        span_id = self.trace.span_id if self.trace is not None else 0
        return (
            self.step, self.stage, self.items, self.since_s, self.asked_s, self.sent_s, self.ended_s, self.address,
            self.call, self.failed, self.fault, tuple(self.timings), span_id,
        )  # fmt: skip


# Makes the next attempt of a call, by how many items it has.
Begin = Callable[[int], Attempt]


def unrecorded(items: int) -> Attempt:
    """An attempt that nobody remembers."""
    return Attempt("", "", 0.0, items)


class SourceStory:
    """Notes on one source.

    Attributes:
        mark_s: where the chain has come to.
        settled_s: when the last call of a stage or an API ended.
    """

    __slots__ = (
        "_attempts", "_ended_s", "_fault", "_left_out", "_source_id", "_spans", "_trace", "mark_s",
        "settled_s",
    )  # fmt: skip

    def __init__(self, source_id: str, accepted_s: float, trace: TraceContext | None = None) -> None:
        self._trace = trace
        self.mark_s = self.settled_s = accepted_s
        self._source_id = source_id
        self._spans: list[tuple[Any, ...]] = []
        self._attempts: list[Attempt] = []
        self._left_out = 0
        self._ended_s = 0.0
        self._fault: Fault = ()

    def note(self, kind: str) -> None:
        """The chain comes to here: the time since the mark before was spent on this."""
        now_s = monotonic()
        if now_s - self.mark_s >= SHORT_S:
            self._spans.append((kind, "", self.mark_s, now_s))
            self.mark_s = now_s

    def resume(self, kind: str) -> None:
        """The chain goes on here, after all that forked off it has ended: the time since then was spent on this."""
        now_s = monotonic()
        self.span(kind, max(self.mark_s, self.settled_s), now_s)
        self.mark_s = now_s

    def span(
        self, kind: str, begun_s: float, ended_s: float, step: str = "", *, fault: Fault = (), span_id: int = 0
    ) -> None:
        """Time was spent on something besides the chain."""
        if ended_s - begun_s < SHORT_S:
            return
        if len(self._spans) < MOST_SPANS:
            self._spans.append((kind, step, begun_s, ended_s, fault, span_id))
        else:
            self._left_out += 1

    def handled(self, step: str, answered_s: float) -> float:
        """An answer of a step was taken in, and what follows from it is known from now on; returns this moment."""
        now_s = monotonic()
        self.span("handle", answered_s, now_s, step)
        self.settled_s = now_s
        return now_s

    def below(self) -> TraceContext | None:
        """The span of a call that is to be made; None where there are no traces."""
        return self._trace.below() if self._trace is not None and self._trace.sampled else self._trace

    def called(self, name: str, begun_s: float, fault: Fault, trace: TraceContext | None) -> None:
        """A call of an API has ended."""
        self.settled_s = monotonic()
        span_id = trace.span_id if trace is not None else 0
        self.span("api", begun_s, self.settled_s, name, fault=fault, span_id=span_id)

    def attempt(self, step: str, stage: str, since_s: float, items: int) -> Attempt:
        """A call of a stage is to be made, or made again."""
        attempts = self._attempts
        if attempts and (last := attempts[-1]).step == step and last.fault and last.ended_s > since_s:
            since_s = last.ended_s  # it is tried again
        attempt = Attempt(step, stage, since_s, items, trace=self.below())
        if len(attempts) < MOST_SPANS:
            attempts.append(attempt)
        else:
            self._left_out += 1
        return attempt

    def end(self, error: BaseException | None) -> None:
        """It has ended; with an error if it failed."""
        for attempt in self._attempts:
            self.settled_s = max(self.settled_s, attempt.ended_s)
        self.resume("finish")
        self._ended_s = self.mark_s
        if error is not None:
            self._fault = fault_of(error)

    def row(self) -> tuple[Any, ...]:
        """All of it so far, in the order of `SourceRow`, of plain tuples."""
        attempts = tuple([attempt.row() for attempt in self._attempts])
        return (self._source_id, self._ended_s, self._fault, tuple(self._spans), attempts, self._left_out)


class _NobodysStory(SourceStory):
    """Takes no notes."""

    __slots__ = ()

    def note(self, kind: str) -> None:
        """Nothing."""

    def resume(self, kind: str) -> None:
        """Nothing."""

    def span(
        self, kind: str, begun_s: float, ended_s: float, step: str = "", *, fault: Fault = (), span_id: int = 0
    ) -> None:
        """Nothing."""

    def handled(self, step: str, answered_s: float) -> float:  # noqa: ARG002
        """Nothing."""
        return answered_s

    def called(self, name: str, begun_s: float, fault: Fault, trace: TraceContext | None) -> None:
        """Nothing."""

    def attempt(self, step: str, stage: str, since_s: float, items: int) -> Attempt:  # noqa: ARG002
        """One that the next takes the place of."""
        return unrecorded(items)

    def end(self, error: BaseException | None) -> None:
        """Nothing."""


NOBODYS = _NobodysStory("", 0.0)
