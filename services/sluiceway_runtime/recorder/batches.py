"""The batches of a worker pool, as they end: which requests were in them, how long each waited, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sluiceway_runtime.recorder.ring import MOST_REQUESTS, Ring

__all__ = ["BatchLog", "BatchRow", "Part", "Watched"]

# A request is mostly in one batch or two; of many crops it is in more, and then fewer requests are remembered.
BATCHES_PER_REQUEST = 2
# Of all rows of a log, for each: one of a single request takes about 120, each further request 50.
BATCH_BYTES = 384


# A batch of a call that is watched; see `BatchLog.unwatch`.
Watched = tuple[tuple[Any, ...], int, float, list[Any]]


class Part(NamedTuple):
    """The items of one submission in a batch.

    Attributes:
        call: number of the call that they came with.
        items: how many.
        waiting_s: since when they waited: they were taken then, or came back from another batch.
    """

    request_id: str
    call: int
    items: int
    waiting_s: float


class BatchRow(NamedTuple):
    """One batch. Times are of this server's monotonic clock.

    Attributes:
        begun_s: when its worker can first have begun it; None where others were before it to the end.
        compute_ms: in the worker's own measure; 0 where it did not come to its end.
        fault: what went wrong; empty if nothing did.
        parts: whose items it had.
    """

    id: int
    worker: int
    items: int
    sent_s: float
    begun_s: float | None
    done_s: float
    compute_ms: float
    fault: str
    parts: tuple[Part, ...]


class BatchLog:
    """The latest batches; a pool's scheduler tells it of each that is over."""

    def __init__(self, requests: int = MOST_REQUESTS) -> None:
        batches = requests * BATCHES_PER_REQUEST
        self._most = batches
        self._ring = Ring(batches, batches * BATCH_BYTES)
        # By number of the call: whoever watches, and what was seen.
        self._watched: dict[int, tuple[Any, list[Watched]]] = {}

    def __len__(self) -> int:
        return len(self._ring)

    def over(self, batch: Any, now: float, compute_ms: float, fault: str) -> None:
        """A batch is with its worker no longer; see `pool.policy.items.Journal`."""
        if not (self._most or self._watched):
            return
        items = batch.items
        if len(items) == 1:
            item = items[0]
            names: tuple[str, ...] = (item.request_id,)
            facts: tuple[Any, ...] = (_call_of(item.owner), 1, _waiting_s(item))
        else:
            owners: dict[Any, list[Any]] = {}
            for item in items:
                its = owners.get(item.owner)
                if its is None:
                    owners[item.owner] = [item, 1]
                else:
                    its[1] += 1
            names = tuple([first.request_id for first, _ in owners.values()])
            facts = tuple(
                [fact for first, n in owners.values() for fact in (_call_of(first.owner), n, _waiting_s(first))]
            )
        row = (batch.id, batch.worker, len(items), batch.sent_s, batch.begun_s, now, compute_ms, fault, names, facts)
        if self._most:
            self._ring.add(row)
        if self._watched:
            self._tell(row, names, facts)

    def watch(self, call: int, watcher: Any) -> None:
        """Collect the batches of a call from now on, until `unwatch`.

        Args:
            call: its number.
            watcher: whom others who watch a batch of it find beside them.
        """
        self._watched[call] = (watcher, [])

    def unwatch(self, call: int) -> list[Watched]:
        """Which batches of a call are over: the row, how many of its items, waiting since when, who else watched."""
        return self._watched.pop(call)[1]

    def _tell(self, row: tuple[Any, ...], names: tuple[str, ...], facts: tuple[Any, ...]) -> None:
        calls = {facts[3 * place]: place for place in range(len(names)) if facts[3 * place] in self._watched}
        for call, place in calls.items():
            others = [self._watched[other][0] for other in calls if other != call]
            self._watched[call][1].append((row, facts[3 * place + 1], facts[3 * place + 2], others))

    def of(self, request_id: str) -> list[BatchRow]:
        """Batches that a request was in, in the order of their ends."""
        rows = (row for row in self._ring.holding(request_id) if request_id in row[8])
        return [BatchRow._make((*row[:8], _parts(row[8], row[9]))) for row in rows]


def _call_of(owner: Any) -> int:
    # None of an item of nobody, by which a machine is tried.
    return owner.call if owner is not None else 0


def _waiting_s(item: Any) -> float:
    waiting_s: float = item.trail[-1][0] if item.trail else item.accepted_s
    return waiting_s


def _parts(names: Sequence[str], facts: Sequence[Any]) -> tuple[Part, ...]:
    return tuple(Part(name, *facts[3 * place : 3 * place + 3]) for place, name in enumerate(names))
