"""Early refusal: what could not be done in time is refused when it comes, so that what was accepted is done in time.

Pure: time and the state of the stages come in. Without this, a server with more work than it can do serves each image
just when its deadline passes, and so none at all.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from math import inf

from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.priority import Priority

__all__ = ["Admission", "Throughput"]

# Of the time that a job has, the part that the expected time may take up: the rest is for what is not as expected.
SHARE = 0.5
# Throughput is what left during the latest so many seconds, but at least so many sources.
RECENT_S = 3.0
RECENT_SOURCES = 16
# Fewer than this, or within a shorter time, say nothing yet.
LEAST_SOURCES, LEAST_S = 4, 0.5
# Until there is a measure of now, the last one counts for so long.
REMEMBER_S = 15.0
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.1, 10.0


class Throughput:
    """Sources a second, measured only while a stage had all the work that it can take."""

    def __init__(self) -> None:
        self._left_s: deque[float] = deque()
        self._busy_since_s: float | None = None
        self._last = 0.0
        self._last_s = float("-inf")

    def observe(self, now_s: float, *, busy: bool) -> None:
        """Note whether a stage has all that it can work on; idle time says nothing about how fast it can be."""
        if not busy:
            self.per_s(now_s)  # what was measured until now is remembered
            self._busy_since_s = None
            self._left_s.clear()
        elif self._busy_since_s is None:
            self._busy_since_s = now_s

    def left(self, now_s: float) -> None:
        """A source is finished."""
        if self._busy_since_s is None:
            return
        self._left_s.append(now_s)
        while len(self._left_s) > RECENT_SOURCES and self._left_s[0] < now_s - RECENT_S:
            self._left_s.popleft()

    def per_s(self, now_s: float) -> float | None:
        """Sources a second; None while nothing is known."""
        if self._busy_since_s is not None and len(self._left_s) >= LEAST_SOURCES:
            # The oldest one ended the time before it; with none left out that time is known as well.
            begun_s = max(self._busy_since_s, min(self._left_s[0], now_s - RECENT_S))
            if now_s - begun_s >= LEAST_S:
                count = sum(left_s >= begun_s for left_s in self._left_s)
                self._last, self._last_s = count / (now_s - begun_s), now_s
        return self._last if now_s - self._last_s < REMEMBER_S and self._last > 0 else None


class Admission:
    """Knows what is accepted and not finished, and how fast it gets less.

    The expected time of a new source is that of everything before it, itself included, at the present throughput
    (Little's law), whichever stage is the narrow one. Before it is what is of a higher class, and within its class its
    fair share: as many sources of each other client as its own client has.

    Args:
        longest_s: what is expected to take longer is refused whatever its deadline, except bulk work; None for none.
    """

    def __init__(self, longest_s: float | None = None) -> None:
        self.throughput = Throughput()
        self._longest_s = longest_s
        self._counts: tuple[Counter[Hashable], ...] = tuple(Counter() for _ in Priority)

    def __repr__(self) -> str:
        return f"<Admission sources={[count.total() for count in self._counts]}>"

    def check(self, client: Hashable, priority: Priority, remaining_s: float, now_s: float, *, busy: bool) -> None:
        """Refuse a job whose first source would not be done in time, or would take longer than anything should here.

        Args:
            client: whose job it is.
            priority: its class.
            remaining_s: until its deadline.
            now_s: monotonic time.
            busy: whether the stages are there and one has all that it can work on. Otherwise nothing is refused: a
                worker is free, or a stage is away and may be back at any moment.

        Raises:
            QueueFull: with the time after which it would be accepted, were there no others.
        """
        self.throughput.observe(now_s, busy=busy)
        per_s = self.throughput.per_s(now_s) if busy else None
        if per_s is None:
            return
        expected_s = (self._ahead(client, priority) + 1) / per_s
        in_time_s = SHARE * remaining_s
        # Bulk work is there to wait.
        longest_s = inf if self._longest_s is None or priority is Priority.BULK else self._longest_s
        excess_s = expected_s - min(in_time_s, longest_s)
        if excess_s > 0:
            raise QueueFull(
                "the wait would outlast the deadline"
                if in_time_s <= longest_s
                else "it would take longer than latency_bound_ms allows",
                metadata={"expected_ms": str(round(expected_s * 1000))},
                retry_after_s=min(max(excess_s, SHORTEST_RETRY_S), LONGEST_RETRY_S),
            )

    def enter(self, client: Hashable, priority: Priority, sources: int) -> None:
        """Sources were accepted."""
        self._counts[priority][client] += sources

    def leave(self, client: Hashable, priority: Priority, now_s: float, *, busy: bool) -> None:
        """One of them is finished, whatever came of it."""
        self.throughput.observe(now_s, busy=busy)
        self.throughput.left(now_s)
        counts = self._counts[priority]
        counts[client] -= 1
        if not counts[client]:
            del counts[client]

    def _ahead(self, client: Hashable, priority: Priority) -> int:
        own = self._counts[priority][client]
        higher = sum(count.total() for count in self._counts[:priority])
        return higher + own + sum(min(n, own + 1) for name, n in self._counts[priority].items() if name != client)
