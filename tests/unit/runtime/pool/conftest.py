"""A desk to play events to a scheduler on, with a clock that is a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
from named_payload import Named
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.items import Batch, Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.statistics import WorkerState
from sluiceway_runtime.priority import Priority


class Desk:
    """Feeds a scheduler and keeps what it decided, as a caller would see it."""

    def __init__(
        self,
        workers: int = 1,
        credits_each: int = 1,
        timing: Timing | None = None,
        *,
        start: bool = True,
        overlap: int = 1,
        **limits: Any,
    ) -> None:
        self.now = 100.0
        self.limits = PoolLimits(**limits)
        # Of each batch that is over: its number, its items, when, how long it was computed, what went wrong.
        self.journal: list[tuple[int, tuple[int, ...], float, float, str]] = []
        self.scheduler = Scheduler(workers, credits_each, self.limits, timing, overlap=overlap, journal=self.over)
        self.ids = itertools.count(1)
        self.answers: dict[int, list[object]] = {}
        self.held: dict[int, list[tuple[int, tuple[int, ...]]]] = {index: [] for index in range(workers)}
        self.dispatched: list[tuple[int, tuple[int, ...]]] = []
        self.notes: list[str] = []
        self.named: list[str] = []
        self.gave_up: list[str] = []
        self.orders: list[tuple[str, int]] = []
        if start:
            self.feed(events.StartRequested())
            for worker in range(workers):
                self.feed(events.WorkerReady(worker))

    def over(self, batch: Batch, now: float, compute_ms: float, fault: str) -> None:
        self.journal.append((batch.id, tuple(item.id for item in batch.items), now, compute_ms, fault))

    def feed(self, event: events.Event) -> list[actions.Action]:
        done = self.scheduler.on_event(event, self.now)
        for action in done:
            match action:
                case actions.Dispatch(worker, batch_id, items):
                    item_ids = tuple(item.id for item in items)
                    self.held[worker].append((batch_id, item_ids))
                    self.dispatched.append((worker, item_ids))
                case actions.Succeed(items, results):
                    for item, result in zip(items, results, strict=True):
                        self.answers.setdefault(item.id, []).append(result)
                case actions.Fail(items, error) | actions.Refuse(items, error):
                    for item in items:
                        self.answers.setdefault(item.id, []).append(error)
                case actions.StartWorker(worker):
                    self.orders.append(("start", worker))
                case actions.StopWorker(worker):
                    self.orders.append(("stop", worker))
                case actions.KillWorker(worker):
                    self.orders.append(("kill", worker))
                case actions.Note(message, request_id):
                    self.notes.append(message)
                    self.named.append(request_id)
                case actions.GiveUp(message):
                    self.gave_up.append(message)
        return done

    def submit(
        self,
        *,
        request: str = "r",
        within: float = 1000.0,
        priority: Priority = Priority.NORMAL,
        group: Hashable = None,
        cost: int = 1,
        size: int = 1,
        content: str | None = None,
    ) -> int:
        (item_id,) = self.submit_many(
            1, request=request, within=within, priority=priority, group=group, cost=cost, size=size, contents=[content]
        )
        return item_id

    def submit_many(
        self,
        count: int,
        *,
        request: str = "r",
        within: float = 1000.0,
        priority: Priority = Priority.NORMAL,
        group: Hashable = None,
        cost: int = 1,
        size: int = 1,
        contents: Sequence[str | None] = (),
    ) -> list[int]:
        items = []
        for _, content in itertools.zip_longest(range(count), contents):
            item_id = next(self.ids)
            digest = str(item_id) if content is None else content
            items.append(Item(item_id, request, self.now + within, priority, group, cost, size, Named(digest)))
        self.feed(events.ItemsArrived(items))
        return [item.id for item in items]

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.feed(events.Tick())

    def done(
        self, worker: int = 0, *, after: float = 0.0, memory_mb: int = 0, errors: dict[int, Any] | None = None
    ) -> None:
        """The worker finishes its current batch; the result of item 3 is "3"."""
        self.now += after
        batch_id, item_ids = self.held[worker].pop(0)
        results = tuple((errors or {}).get(item_id, str(item_id)) for item_id in item_ids)
        self.feed(events.BatchDone(worker, batch_id, results, 1.0, memory_mb * 2**20))

    def raised(self, worker: int = 0) -> tuple[int, ...]:
        batch_id, item_ids = self.held[worker].pop(0)
        self.feed(events.BatchRaised(worker, batch_id, "boom"))
        return item_ids

    def died(self, worker: int = 0, *, back: bool = True, undelivered: int = 0, broken: bool = False) -> None:
        """The worker ends; the last so many of the batches that it was sent had never reached it."""
        held = [batch_id for batch_id, _ in self.held[worker]]
        self.held[worker].clear()
        missed = frozenset(held[len(held) - undelivered :])
        self.feed(events.WorkerDied(worker, "it was ended by SIGKILL", missed, broken))
        while back and self.state(worker) is WorkerState.BACKOFF:
            self.tick(self.scheduler.next_wakeup(self.now) - self.now)
        if back and self.state(worker) is WorkerState.STARTING:
            self.feed(events.WorkerReady(worker))

    def cancel(self, item_id: int) -> None:
        self.feed(events.CancelRequested([item_id]))

    def state(self, worker: int = 0) -> WorkerState:
        return self.scheduler.workers[worker].state

    def answer(self, item_id: int) -> object:
        """The one answer of an item, None if it has none yet."""
        answers = self.answers.get(item_id, [])
        assert len(answers) <= 1, f"item {item_id} was answered {len(answers)} times"
        return answers[0] if answers else None

    def error(self, item_id: int) -> SluicewayError:
        error = self.answer(item_id)
        assert isinstance(error, SluicewayError), f"item {item_id} has {error!r}"
        return error

    def batches(self) -> list[tuple[int, ...]]:
        """What was dispatched so far, in order, without the worker."""
        return [item_ids for _, item_ids in self.dispatched]


@pytest.fixture(scope="session")
def make_desk() -> Callable[..., Desk]:
    return Desk
