"""The record of one item, and what it may be part of: all that a pool knows of a piece of work stands here."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from sluiceway_runtime.priority import Priority

__all__ = ["Batch", "Content", "Item", "Journal", "Retry"]


class Content(Protocol):
    """What is used of a payload here."""

    def digest(self) -> str:
        """The content's hash. It is asked for only where a worker has died, as hashing costs time."""
        ...


@dataclass(slots=True, eq=False)
class Item:
    """One piece of work, from its submission to its answer.

    Not frozen, as that doubles the time it takes to make one; whoever submits it leaves it alone.

    Attributes:
        id: never used twice in the life of a pool.
        request_id: items are served fairly between requests.
        deadline_s: on the scheduler's clock.
        priority: class that it was submitted in.
        group: only items of one group share a batch.
        cost: counts against `max_batch_cost`.
        size_bytes: counts against `queue_bytes`.
        payload: what is to be computed; only its digest means anything here.
        owner: whoever is owed the answer; means nothing here.
        position: which of its owner's items it is.
        accepted_s: the ledger's note of when it was taken.
        level: the queue's note of the class that it waits in, None while it does not wait there.
        entered_s: the queue's note of when it came into that class.
        retry: where it waits after it came back from a worker, None while it does not.
        batch: that it is in, None while it is with no worker.
        trail: what happened to it before, as (moment, words); None as long as nothing went wrong.
    """

    id: int
    request_id: str
    deadline_s: float
    priority: Priority
    group: Hashable
    cost: int
    size_bytes: int
    payload: Content
    owner: Any = None
    position: int = 0
    accepted_s: float = 0.0
    level: int | None = None
    entered_s: float = 0.0
    retry: Retry | None = None
    batch: Batch | None = None
    trail: list[tuple[float, str]] | None = None

    def came_back(self, batch: Batch, words: str, now: float) -> None:
        """Note that it was with a worker, and what went wrong there."""
        if self.trail is None:
            self.trail = []
        self.trail += ((batch.sent_s, f"to {batch}"), (now, words))

    def story(self, now: float) -> str:
        """What happened to it and when, in seconds since it was taken."""
        steps = [*(self.trail or ())]
        if self.batch is not None:
            steps.append((self.batch.sent_s, f"to {self.batch}"))
        steps.append((now, "now"))
        return "; ".join(f"{at_s - self.accepted_s:.3g} s: {words}" for at_s, words in steps)


@dataclass(slots=True, eq=False)
class Retry:
    """Items to be run together again; with `probe` a single suspect, to be run alone."""

    items: tuple[Item, ...]
    probe: bool


@dataclass(slots=True, eq=False)
class Batch:
    """Items on their way through a worker.

    Attributes:
        id: never used twice in the life of a pool.
        worker: index of the worker that it was sent to.
        items: those that were sent, also if nobody waits for them any more.
        probe: a suspect by itself on a worker that holds nothing else.
        sent_s: when it was sent.
        begun_s: when the worker can first have begun it, None while that many are before it that it has not.
        took_s: once it is done, its time from then, or from the end of the batch before it if that was later.
    """

    id: int
    worker: int
    items: tuple[Item, ...]
    probe: bool
    sent_s: float
    begun_s: float | None = None
    took_s: float | None = None

    def __str__(self) -> str:
        others = len(self.items) - 1
        company = "alone" if not others else f"with {others} other{'s' if others > 1 else ''}"
        return f"worker {self.worker} {company} (batch {self.id})"

    def over(self) -> None:
        """Its items are with the worker no longer."""
        for item in self.items:
            item.batch = None


# Told of a batch that is with its worker no longer: the batch, with its items, whose trail does not have it yet; the
# time on the scheduler's clock; the milliseconds that the worker says that it computed, 0 where it does not say it; and
# what went wrong, empty if it was computed. It decides nothing and keeps no item.
Journal = Callable[[Batch, float, float, str], None]
