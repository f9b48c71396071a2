"""The pool's decisions: a pure state machine without I/O, clock or asyncio.

`on_event(event, now)` changes the state and returns what is to be done; `next_wakeup(now)` tells when a `Tick` is due
if nothing happens before. The policies:

- **Pull.** A worker gets a batch when it has a credit. An idle one never waits for a batch to fill; a busy one gets its
  next batch ahead only while a full one's worth of items waits, as sending a small one early gains nothing.
- **Order.** As in `queue`. Idle workers share what waits, instead of one getting all of it.
- **Time.** An item past its deadline is answered at that moment, and is not computed any more.
- **Crashes.** The items of the batch that a worker died with are suspects. Each is run alone; one that ends that worker
  too is quarantined. At most half the workers are risked for suspects at a time. A batch whose handler raised is halved
  until the guilty item is alone.

Every accepted item gets exactly one answer (`Succeed` or `Fail`), unless it is cancelled first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sluiceway_runtime.errors import (
    DeadlineExceeded,
    ModelFailed,
    Quarantined,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool import actions, events
from sluiceway_runtime.pool.actions import Action
from sluiceway_runtime.pool.events import Event, Item
from sluiceway_runtime.pool.ledger import Account, Ledger
from sluiceway_runtime.pool.limits import PoolLimits, Timing
from sluiceway_runtime.pool.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.queue import FairQueue
from sluiceway_runtime.pool.rate import ServiceRate
from sluiceway_runtime.pool.retries import Retries
from sluiceway_runtime.pool.slots import Batch, Slot
from sluiceway_runtime.pool.statistics import Counters
from sluiceway_runtime.pool.workforce import Workforce

__all__ = ["Scheduler"]


class Scheduler:
    """Decides for one pool.

    Args:
        workers: how many there are; they are named by index.
        credits_per_worker: batches that each may hold.
        limits: what the operator bounds.
        timing: what the project bounds.
    """

    def __init__(self, workers: int, credits_per_worker: int, limits: PoolLimits, timing: Timing | None = None) -> None:
        self.queue_ms = 0.0
        self._credits = credits_per_worker
        self._limits = limits
        self._timing = timing or Timing()
        self._ledger = Ledger()
        self._queue = FairQueue(self._timing.ageing_s)
        self._retries = Retries()
        self._workforce = Workforce(workers, limits, self._timing)
        self._quarantine = Quarantine()
        self._rate = ServiceRate()
        self._batches = 0
        self._refusing = "the server is starting"  # empty while items are taken
        self._out: list[Action] = []

    @property
    def slots(self) -> list[Slot]:
        """The workers by index; to be looked at only."""
        return self._workforce.slots

    @property
    def queued(self) -> int:
        """Items waiting."""
        return len(self._queue) + len(self._retries)

    @property
    def queued_bytes(self) -> int:
        """Payload bytes waiting."""
        return self._queue.size_bytes + self._retries.size_bytes

    @property
    def unanswered(self) -> int:
        """Accepted items that have no answer yet."""
        return len(self._ledger)

    @property
    def complete(self) -> bool:
        """Whether all workers have been ready."""
        return self._workforce.complete

    @property
    def stopped(self) -> bool:
        """Whether every worker has ended for good."""
        return self._workforce.stopped

    @property
    def item_s(self) -> float:
        """Smoothed time of one item on one worker; 0 while unknown."""
        return self._rate.item_s

    @property
    def counters(self) -> Counters:
        """Totals so far."""
        return self._ledger.counters(self._workforce.deaths, self._workforce.recycled)

    def on_event(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and decide what follows.

        Args:
            event: what happened.
            now: seconds on a monotonic clock.

        Returns:
            What is to be done, in this order.
        """
        self._out = []
        for account in self._ledger.due(now):
            where = "in the queue" if account.dispatched_s is None else "during the computation"
            self._fail([account.item], DeadlineExceeded(f"the deadline passed {where}"), "expired")
        match event:
            case events.Submitted(item):
                self._submit(item, now)
                return self._out
            case events.CancelRequested(item_id):
                if item_id in self._ledger:
                    self._close_account(item_id, "cancelled")
                return self._out
            case events.StartRequested():
                self._workforce.start(now)
            case events.WorkerReady(worker, memory_bytes):
                self._out += self._workforce.worker_ready(self.slots[worker], memory_bytes, now)
                if self._workforce.complete and self._refusing == "the server is starting":
                    self._refusing = ""
            case events.SetupFailed(worker, message):
                self._out += self._workforce.setup_failed(self.slots[worker], message)
            case events.BatchDone():
                self._done(event, now)
            case events.BatchRaised(worker, batch_id, message):
                self._raised(self.slots[worker], batch_id, message, now)
            case events.BatchUndelivered(worker, batch_id, error):
                if (batch := self.slots[worker].finish(batch_id, now)) is not None:
                    self._fail(batch.items, error)
            case events.WorkerLeaving(worker):
                self._run_again(self._workforce.leaving(self.slots[worker], now))
            case events.WorkerDied(worker, reason):
                self._died(self.slots[worker], reason, now)
            case events.DrainRequested():
                self._refusing = "the server is stopping"
            case events.CloseRequested():
                self._refusing = "the server is stopping"
                self._fail(self._ledger.all(), Unavailable("the server is stopping"))
                self._out += self._workforce.close(now)
            case events.Tick():
                pass
        self._out += self._workforce.watch(now)
        self._dispatch(now)
        return self._out

    def next_wakeup(self, now: float) -> float | None:
        """When a `Tick` is due, `now` at the earliest; None if nothing is waited for."""
        at_s = min(self._workforce.wakeup_s(), self._ledger.next_deadline_s())
        return None if at_s == math.inf else max(at_s, now)

    # Taking items in

    def _submit(self, item: Item, now: float) -> None:
        verdict = self._quarantine.verdict(item)
        error = self._refusal(item, verdict, now)
        if error is not None:
            self._ledger.count("refused")
            self._out.append(actions.Refuse(item.id, error))
            return
        self._ledger.open(item, now)
        if verdict is Verdict.SUSPECT:
            self._retries.add([(item,)], probe=True)
        else:
            self._queue.push(item, now)

    def _refusal(self, item: Item, verdict: Verdict, now: float) -> SluicewayError | None:
        if self._refusing:
            return Unavailable(self._refusing)
        if item.deadline_s <= now:
            return DeadlineExceeded("the deadline had passed on arrival")
        if verdict is Verdict.GUILTY:
            return _quarantined(item)
        workers = len(self._workforce.ready)
        if not workers and self._workforce.hopeless:
            retry_after_s = self._bounded(self._workforce.next_restart_s() - now)
            return Unavailable("no worker can be started", retry_after_s=retry_after_s)
        ahead = self._queue.ahead_of(item.priority) + len(self._retries)
        if self.queued >= self._limits.queue_items:
            reason = "the queue is full"
        elif self.queued and self.queued_bytes + item.size_bytes > self._limits.queue_bytes:
            reason = "the queue holds as many bytes as it may"
        elif now + self._rate.wait_s(ahead, workers) > item.deadline_s:
            reason = "the wait would outlast the deadline"
        else:
            return None
        return QueueFull(reason, retry_after_s=self._bounded(self._rate.wait_s(self.queued, workers)))

    def _bounded(self, retry_after_s: float) -> float:
        return min(max(retry_after_s, self._timing.retry_after_min_s), self._timing.retry_after_max_s)

    # Handing items out

    def _dispatch(self, now: float) -> None:
        self._queue.age(now)
        while self._dispatch_probe(now) or self._dispatch_retry(now) or self._dispatch_queued(now):
            pass

    def _dispatch_probe(self, now: float) -> bool:
        if not self._may_probe():
            return False
        idle = [slot for slot in self._workforce.ready if not slot.in_flight]
        retry = self._retries.first(probe=True)
        if retry is None or not idle:
            return False
        self._send(min(idle, key=_rest), self._retries.pop(retry), now, probe=True)
        return True

    def _dispatch_retry(self, now: float) -> bool:
        retry = self._retries.first(probe=False)
        free = self._free_slots()
        if retry is None or not free:
            return False
        self._send(free[0], self._retries.pop(retry), now)
        return True

    def _dispatch_queued(self, now: float) -> bool:
        free = self._free_slots()
        if not self._queue or not free:
            return False
        limits = self._limits
        idle = sum(not slot.in_flight for slot in free)
        if idle:
            max_items = min(limits.max_batch, math.ceil(self._queue.next_group_size() / idle))
        elif len(self._queue) >= limits.max_batch or self._queue.cost >= (limits.max_batch_cost or math.inf):
            max_items = limits.max_batch
        else:
            return False
        self._send(free[0], tuple(self._queue.pop_batch(max_items, limits.max_batch_cost)), now)
        return True

    def _may_probe(self) -> bool:
        """Whether a suspect waits and may be risked."""
        ready = self._workforce.ready
        risked = sum(slot.probing for slot in self.slots)
        return self._retries.first(probe=True) is not None and risked < max(1, len(ready) // 2)

    def _free_slots(self) -> list[Slot]:
        """Workers with a credit, the one that rested longest first.

        If a suspect waits for an idle worker, the one that will be idle first is kept for it.
        """
        working = [slot for slot in self._workforce.ready if not slot.probing]
        if working and self._may_probe():
            working.remove(min(working, key=_rest))
        return sorted((slot for slot in working if len(slot.in_flight) < self._credits), key=_rest)

    def _send(self, slot: Slot, items: tuple[Item, ...], now: float, *, probe: bool = False) -> None:
        self._batches += 1
        self._ledger.count("batches")
        self.queue_ms = self._ledger.dispatched(items, now) * 1000
        slot.take(Batch(self._batches, items, probe), now)
        self._out.append(actions.Dispatch(slot.index, self._batches, tuple(item.id for item in items)))

    # Taking results

    def _done(self, event: events.BatchDone, now: float) -> None:
        slot = self.slots[event.worker]
        if (batch := slot.finish(event.batch_id, now)) is None:
            return
        if batch.begun_s is not None:
            self._rate.observe(now - batch.begun_s, len(batch.items))
        if batch.probe:
            self._quarantine.remember(batch.items[0], Verdict.INNOCENT)
        for item, result in zip(batch.items, event.results, strict=True):
            if isinstance(result, SluicewayError):
                self._fail([item], result)
            elif item.id in self._ledger:
                account = self._close_account(item.id, "succeeded")
                queue_ms = ((account.dispatched_s or account.accepted_s) - account.accepted_s) * 1000
                self._out.append(actions.Succeed(item.id, result, queue_ms, event.compute_ms, slot.index))
        self._out += self._workforce.batch_over(slot, event.memory_bytes)

    def _raised(self, slot: Slot, batch_id: int, message: str, now: float) -> None:
        if (batch := slot.finish(batch_id, now)) is None:
            return
        if batch.probe:
            self._quarantine.remember(batch.items[0], Verdict.INNOCENT)
        wanted = self._ledger.wanted(batch.items)
        if len(batch.items) > 1:
            middle = len(wanted) // 2
            self._retries.add([wanted[:middle], wanted[middle:]])
        else:
            # The message of the model may hold what it read: the log gets it, the client does not.
            self._out.append(actions.Note(f"the model raised on an item: {message}"))
            self._fail(wanted, ModelFailed("the model failed on this item"))

    def _died(self, slot: Slot, reason: str, now: float) -> None:
        lost, told = self._workforce.died(slot, reason, now)
        self._out += told
        if not lost:
            return
        current, *others = lost
        self._run_again(others)
        if current.probe:
            culprit = current.items[0]
            self._quarantine.remember(culprit, Verdict.GUILTY)
            self._ledger.count("quarantined")
            self._out.append(actions.Note(f"item {culprit.digest()} is quarantined: worker {slot.index} {reason}"))
            self._fail([culprit], _quarantined(culprit))
            return
        wanted = self._ledger.wanted(current.items)
        for ghost in (item for item in current.items if item not in wanted):
            # Not worth computing now, but if it comes back it must not take others with it.
            self._quarantine.remember(ghost, Verdict.SUSPECT)
        self._retries.add([(item,) for item in wanted], probe=True)

    def _run_again(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            self._retries.add([self._ledger.wanted(batch.items)], probe=batch.probe)

    def _fail(self, items: Iterable[Item], error: SluicewayError, outcome: str = "failed") -> None:
        for item in items:
            if item.id in self._ledger:
                self._close_account(item.id, outcome)
                self._out.append(actions.Fail(item.id, error))

    def _close_account(self, item_id: int, outcome: str) -> Account:
        if item_id in self._queue:
            self._queue.remove(item_id)
        elif item_id in self._retries:
            self._retries.remove(item_id)
        return self._ledger.close(item_id, outcome)


def _rest(slot: Slot) -> tuple[int, float]:
    """Order of workers for new work: least in hand, then longest idle."""
    return len(slot.in_flight), slot.idle_since_s


def _quarantined(item: Item) -> Quarantined:
    return Quarantined("this item ended a worker before and is not tried again", metadata={"digest": item.digest()})
