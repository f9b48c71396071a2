"""The pool's decisions: a pure state machine without I/O, clock or asyncio.

`on_event(event, now)` changes the state and returns what is to be done; `next_wakeup(now)` tells when a `Tick` is due
if nothing happens before. The policies:

- **Pull.** A worker gets a batch when it has a credit. An idle one never waits for a batch to fill; a busy one gets its
  next batch ahead only while a full one's worth of items waits, as sending a small one early gains nothing.
- **Order.** As in `queue`. Idle workers share what waits, instead of one getting all of it, and where a batch gains
  nothing in parts that shrink with what is left, so that they end together. A single item goes to the worker that
  computed last: taking turns, two detectors were a tenth slower for having to load their weights again.
- **Time.** An item past its deadline is answered at that moment, and is not computed any more.
- **Crashes.** The items of the batches that a worker had begun when it died are suspects. Each is run alone; one that
  ends that worker too is quarantined. At most half the workers are risked for suspects at a time. A batch whose handler
  raised is halved until the guilty item is alone.

Every accepted item gets exactly one answer (`Succeed` or `Fail`), unless it is cancelled first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sluiceway_runtime.errors import (
    DeadlineExceeded,
    ModelFailed,
    Quarantined,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.actions import Action
from sluiceway_runtime.pool.policy.admission import Admission
from sluiceway_runtime.pool.policy.events import Event, Item
from sluiceway_runtime.pool.policy.ledger import Ledger
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.policy.queue import FairQueue
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.policy.retries import Retries
from sluiceway_runtime.pool.policy.slots import Batch, Slot
from sluiceway_runtime.pool.policy.statistics import Counters
from sluiceway_runtime.pool.policy.workforce import Workforce

__all__ = ["Scheduler"]


class Scheduler:
    """Decides for one pool.

    Args:
        workers: how many there are; they are named by index.
        credits_per_worker: batches that each may hold.
        limits: what the operator bounds.
        timing: what the project bounds.
        overlap: batches that each may have begun at once.
    """

    def __init__(
        self,
        workers: int,
        credits_per_worker: int,
        limits: PoolLimits,
        timing: Timing | None = None,
        *,
        overlap: int = 1,
    ) -> None:
        self.queue_ms = 0.0
        self._credits = credits_per_worker
        self._limits = limits
        self._timing = timing or Timing()
        self._ledger = Ledger()
        self._queue = FairQueue(self._timing.ageing_s)
        self._retries = Retries()
        self._workforce = Workforce(workers, limits, self._timing, overlap)
        self._quarantine = Quarantine()
        self._rate = ServiceRate()
        self._admission = Admission(limits, self._timing, self._workforce, self._rate)
        self._batches = 0
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
        for item in self._ledger.due(now):
            where = "in the queue" if item.dispatched_s is None else "during the computation"
            self._fail([item], DeadlineExceeded(f"the deadline passed {where}"), "expired")
        match event:
            case events.Submitted(items):
                self._submit(items, now)
                return self._out
            case events.CancelRequested(item_ids):
                self._close(self._ledger.found(item_ids), "cancelled")
                return self._out
            case events.StartRequested():
                self._workforce.start(now)
            case events.WorkerReady(worker, memory_bytes):
                self._out += self._workforce.worker_ready(self.slots[worker], memory_bytes, now)
                if self._workforce.complete:
                    self._admission.open()
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
            case events.WorkerDied(worker, reason, undelivered):
                self._died(self.slots[worker], reason, undelivered, now)
            case events.DrainRequested():
                self._admission.close()
            case events.CloseRequested():
                self._admission.close()
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

    def _submit(self, items: Sequence[Item], now: float) -> None:
        taken: list[Item] = []
        suspects: list[Item] = []
        refusal = self._admission.closed(items[0], now)
        ahead = self._queue.ahead_of(items[0].priority) + len(self._retries)
        room = self._admission.room(self.queued, self.queued_bytes, ahead, now)
        if refusal is None and not self._quarantine and room.holds(items):
            self._ledger.open(items, now)
            self._queue.push(items, now)
            return
        for position, item in enumerate(items):
            verdict = self._quarantine.verdict(item)
            if refusal is None and verdict is Verdict.GUILTY:
                self._refuse((item,), _quarantined(item))
                continue
            refusal = refusal or room.enter(item)
            if refusal is not None:
                self._refuse(items[position:], refusal)
                break
            (suspects if verdict is Verdict.SUSPECT else taken).append(item)
        if taken or suspects:
            self._ledger.open([*taken, *suspects], now)
        if taken:
            self._queue.push(taken, now)
        if suspects:
            self._retries.add([(item,) for item in suspects], probe=True)

    def _refuse(self, items: Sequence[Item], error: SluicewayError) -> None:
        self._ledger.count("refused", len(items))
        self._out.append(actions.Refuse(tuple([item.id for item in items]), error))

    # Handing items out

    def _dispatch(self, now: float) -> None:
        self._queue.age(now)
        while self._retries and (self._dispatch_probe(now) or self._dispatch_retry(now)):
            pass
        while self._queue and self._dispatch_queued(now):
            pass

    def _dispatch_probe(self, now: float) -> bool:
        if not self._may_probe():
            return False
        idle = [slot for slot in self._workforce.ready if not slot.in_flight]
        retry = self._retries.first(probe=True)
        if retry is None or not idle:
            return False
        self._send(min(idle, key=_warmth), self._retries.pop(retry), now, probe=True)
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
        if not free:
            return False
        limits = self._limits
        idle = sum(not slot.in_flight for slot in free)
        full = len(self._queue) >= limits.max_batch or self._queue.cost >= (limits.max_batch_cost or math.inf)
        if not (idle or full):
            return False
        batch = self._queue.pop_batch(self._batch_items(), limits.max_batch_cost, workers=max(idle, 1))
        self._send(free[0], tuple(batch), now)
        return True

    def _batch_items(self) -> int:
        """Most items of the next batch."""
        workers, least = len(self._workforce.ready), self._limits.side_by_side
        if least is None or workers == 1:
            return self._limits.max_batch
        # Guided self-scheduling (Polychronopoulos and Kuck, 1987), with half of an equal share: items differ in length,
        # and a worker that drew short ones comes back for more while another is still at its first batch.
        return min(self._limits.max_batch, max(least, math.ceil(len(self._queue) / (2 * workers))))

    def _may_probe(self) -> bool:
        """Whether a suspect waits and may be risked."""
        if not self._retries or self._retries.first(probe=True) is None:
            return False
        risked = sum(slot.probing for slot in self.slots)
        return risked < max(1, len(self._workforce.ready) // 2)

    def _free_slots(self) -> list[Slot]:
        """Workers with a credit, the one whose caches are warmest first.

        If a suspect waits for an idle worker, the one that will be idle first is kept for it.
        """
        working = [slot for slot in self._workforce.ready if not slot.probing]
        if working and self._may_probe():
            working.remove(min(working, key=_warmth))
        return sorted((slot for slot in working if len(slot.in_flight) < self._credits), key=_warmth)

    def _send(self, slot: Slot, items: tuple[Item, ...], now: float, *, probe: bool = False) -> None:
        self._batches += 1
        self._ledger.count("batches")
        self.queue_ms = self._ledger.dispatched(items, now) * 1000
        slot.take(Batch(self._batches, items, probe), now)
        self._out.append(actions.Dispatch(slot.index, self._batches, tuple([item.id for item in items])))

    # Taking results

    def _done(self, event: events.BatchDone, now: float) -> None:
        slot = self.slots[event.worker]
        if (batch := slot.finish(event.batch_id, now)) is None:
            return
        if batch.took_s is not None:
            self._rate.observe(batch.took_s, len(batch.items))
        if batch.probe:
            self._quarantine.remember(batch.items[0], Verdict.INNOCENT)
        good = actions.Succeed([], [], [], event.compute_ms, slot.index)
        for item, result in zip(batch.items, event.results, strict=True):
            if isinstance(result, SluicewayError):
                self._fail([item], result)
            elif item.id in self._ledger:
                good.item_ids.append(item.id)
                good.results.append(result)
                good.queue_ms.append(((item.dispatched_s or item.accepted_s) - item.accepted_s) * 1000)
        if good.item_ids:
            self._ledger.close(good.item_ids, "succeeded")
            self._out.append(good)
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

    def _died(self, slot: Slot, reason: str, undelivered: frozenset[int], now: float) -> None:
        lost, told = self._workforce.died(slot, reason, now)
        self._out += told
        if not lost:
            return
        begun = [batch for batch in lost if batch.begun_s is not None and batch.id not in undelivered]
        self._run_again([batch for batch in lost if batch not in begun])
        if begun and begun[0].probe:
            culprit = begun[0].items[0]
            self._quarantine.remember(culprit, Verdict.GUILTY)
            self._ledger.count("quarantined")
            self._out.append(actions.Note(f"item {culprit.digest()} is quarantined: worker {slot.index} {reason}"))
            self._fail([culprit], _quarantined(culprit))
            return
        suspects = [item for batch in begun for item in batch.items]
        for ghost in (item for item in suspects if item.id not in self._ledger):
            # Not worth computing now, but if it comes back it must not take others with it.
            self._quarantine.remember(ghost, Verdict.SUSPECT)
        self._retries.add([(item,) for item in self._ledger.wanted(suspects)], probe=True)

    def _run_again(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            self._retries.add([self._ledger.wanted(batch.items)], probe=batch.probe)

    def _fail(self, items: Iterable[Item], error: SluicewayError, outcome: str = "failed") -> None:
        wanted = self._ledger.wanted(items)
        if wanted:
            self._close(wanted, outcome)
            self._out.append(actions.Fail(tuple([item.id for item in wanted]), error))

    def _close(self, items: Sequence[Item], outcome: str) -> None:
        """These are not to be computed any more."""
        for item in items:
            if item.level is not None:
                self._queue.remove(item)
            elif item.id in self._retries:
                self._retries.remove(item.id)
        self._ledger.close([item.id for item in items], outcome)


def _warmth(slot: Slot) -> tuple[int, float]:
    """Order of workers for new work: least in hand, then the one that computed last, whose caches are warm."""
    return len(slot.in_flight), -slot.idle_since_s


def _quarantined(item: Item) -> Quarantined:
    return Quarantined("this item ended a worker before and is not tried again", metadata={"digest": item.digest()})
