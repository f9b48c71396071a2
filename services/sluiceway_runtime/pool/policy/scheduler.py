"""The pool's decisions: a pure state machine without I/O, clock or asyncio.

`on_event(event, now)` changes the state and returns what is to be done; `next_wakeup(now)` tells when a `Tick` is due
if nothing happens before. The policies:

- **Pull.** A worker gets a batch when it has a credit. An idle one never waits for a batch to fill; a busy one gets its
  next batch ahead only while a full one's worth of items waits, and only a good part of a full one.
- **Order.** As in `queue`. Idle workers share what waits, instead of one getting all of it, and where a batch gains
  nothing in parts that shrink with what is left, so that they end together. A single item goes to the worker that
  computed last: taking turns, two detectors were a tenth slower for having to load their weights again.
- **Time.** An item past its deadline is answered at that moment, and is not computed any more. It is taken back from a
  worker that has not begun it, as is one that was cancelled.
- **Crashes.** The items of the batches that a worker had begun when it died are suspects. Each is run alone; one that
  ends that worker too is quarantined, unless it is the machine (see `machine`). At most half the workers are risked for
  suspects at a time. A batch whose handler raised is halved until the guilty item is alone.

Every accepted item gets exactly one answer (`Succeed` or `Fail`), unless it is cancelled first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

from sluiceway_runtime.errors import DeadlineExceeded, ModelFailed, SluicewayError, Unavailable
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.actions import Action
from sluiceway_runtime.pool.policy.admission import Admission, quarantined
from sluiceway_runtime.pool.policy.events import Event
from sluiceway_runtime.pool.policy.handout import Handouts
from sluiceway_runtime.pool.policy.items import Batch, Item, Journal
from sluiceway_runtime.pool.policy.ledger import Ledger
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.machine import Judgement, Machine
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.policy.queue import FairQueue
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.policy.retries import Retries
from sluiceway_runtime.pool.policy.statistics import Counters
from sluiceway_runtime.pool.policy.workers import Worker
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
        journal: is told of batches that are over.
    """

    def __init__(
        self,
        workers: int,
        credits_per_worker: int,
        limits: PoolLimits,
        timing: Timing | None = None,
        *,
        overlap: int = 1,
        journal: Journal = lambda *_: None,
    ) -> None:
        self._journal = journal
        self._timing = timing or Timing()
        self._ledger = Ledger()
        self._queue = FairQueue(self._timing.ageing_s)
        self.retries = Retries()  # to be looked at only
        self._workforce = Workforce(workers, limits, self._timing, overlap)
        self._quarantine = Quarantine(self._timing.verdict_s)
        self._machine = Machine(self._quarantine)
        self._rate = ServiceRate()
        self._admission = Admission(
            limits,
            self._timing,
            workforce=self._workforce,
            machine=self._machine,
            quarantine=self._quarantine,
            rate=self._rate,
        )
        self._handouts = Handouts(
            self._queue,
            self.retries,
            self._workforce,
            self._machine,
            limits=limits,
            credits_per_worker=credits_per_worker,
        )
        self._batches = 0
        self._out: list[Action] = []
        # By batch, the ids of its items that were answered or cancelled by this event while it was with a worker.
        self._unwanted: dict[Batch, set[int]] = {}

    @property
    def workers(self) -> list[Worker]:
        """The workers by index; to be looked at only."""
        return self._workforce.workers

    @property
    def able(self) -> bool:
        """Whether a worker takes work, on a machine that is not taken to be ill."""
        return not self._machine.ill and self._workforce.has_ready

    @property
    def queued(self) -> int:
        """Items waiting."""
        return len(self._queue) + len(self.retries)

    @property
    def queued_bytes(self) -> int:
        """Payload bytes waiting."""
        return self._queue.size_bytes + self.retries.size_bytes

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

    def queue_age_s(self, now: float) -> float:
        """How long the item has been here that waits the longest; 0 while none waits."""
        waiting = [at_s for at_s in (self._queue.oldest_s(), self.retries.oldest_s()) if at_s is not None]
        return now - min(waiting) if waiting else 0.0

    def oldest_wait_s(self, now: float) -> float:
        """Likewise, with what is at a worker behind the batch that it computes; a worker that hangs is seen by it."""
        behind = [
            item.accepted_s
            for worker in self.workers
            for batch in islice(worker.in_flight, 1, None)
            for item in self._ledger.wanted(batch.items)
        ]
        return max(self.queue_age_s(now), now - min(behind, default=now))

    def on_event(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and decide what follows.

        Args:
            event: what happened.
            now: seconds on a monotonic clock.

        Returns:
            What is to be done, in this order.
        """
        self._out = []
        self._decide(event, now)
        if self._unwanted:
            self._recall()
        return self._out

    def _decide(self, event: Event, now: float) -> None:
        if due := self._ledger.due(now):
            self._expire(due, now)
        match event:  # what happens most is tried first
            case events.BatchDone():
                self._done(event, now)
            case events.ItemsArrived(items):
                self._arrived(items, now)
                return
            case events.Tick():
                pass
            case events.CancelRequested(item_ids):
                self._close(self._ledger.found(item_ids), "cancelled")
                return
            case events.StartRequested():
                self._workforce.start(now)
            case events.WorkerReady(worker, memory_bytes):
                self._out += self._workforce.worker_ready(self.workers[worker], memory_bytes, now)
                if self._workforce.complete:
                    self._admission.open()
            case events.SetupFailed(worker, message):
                self._out += self._workforce.setup_failed(self.workers[worker], message)
            case events.BatchRaised(worker, batch_id, message):
                self._raised(self.workers[worker], batch_id, message, now)
            case events.BatchLost(worker, batch_id, error):
                if (batch := self.workers[worker].take_off(batch_id, now)) is not None:
                    self._journal(batch, now, 0.0, "it was lost on the way")
                    batch.over()
                    self._fail(batch.items, error)
            case events.WorkerLeaving(worker):
                self._run_again(self._workforce.leaving(self.workers[worker], now), "the worker left", now)
            case events.WorkerDied():
                self._died(event, now)
            case events.DrainRequested():
                self._admission.close()
            case events.CloseRequested():
                self._admission.close()
                self._fail(self._ledger.all(), Unavailable("the server is stopping"))
                self._out += self._workforce.close(now)
        self._out += self._workforce.watch(now)
        self._dispatch(now)

    def next_wakeup(self, now: float) -> float | None:
        """When a `Tick` is due, `now` at the earliest; None if nothing is waited for."""
        at_s = min(self._workforce.wakeup_s(), self._ledger.next_deadline_s())
        return None if at_s == math.inf else max(at_s, now)

    # Taking items in

    def _arrived(self, items: Sequence[Item], now: float) -> None:
        ahead = self._queue.ahead_of(items[0].priority) + len(self.retries)
        taken, suspects, refused = self._admission.sort(items, self.queued, self.queued_bytes, ahead, now)
        for part, error in refused:
            self._ledger.count("refused", len(part))
            self._out.append(actions.Refuse(part, error))
        if taken:
            self._ledger.open(taken, now)
            self._queue.push(taken, now)
        if suspects:
            self._ledger.open(suspects, now)
            self.retries.add([(item,) for item in suspects], probe=True)

    # Handing items out

    def _dispatch(self, now: float) -> None:
        if self._machine.ill and self.queued:
            self._hand_back(now)
        if self._queue:
            self._queue.age(now)
        while (handout := self._handouts.next()) is not None:
            self._send(*handout, now)

    def _send(self, worker: Worker, items: tuple[Item, ...], probe: bool, now: float) -> None:
        self._batches += 1
        self._ledger.count("batches")
        batch = Batch(self._batches, worker.index, items, probe, now)
        for item in items:
            item.batch = batch
        worker.take(batch)
        self._out.append(actions.Dispatch(worker.index, self._batches, items))

    # Taking results

    def _done(self, event: events.BatchDone, now: float) -> None:
        worker = self.workers[event.worker]
        if (batch := worker.take_off(event.batch_id, now)) is None:
            return
        self._journal(batch, now, event.compute_ms, "")
        computed = len(batch.items)
        good = actions.Succeed([], [], [], event.compute_ms, worker.index)
        for item, result in zip(batch.items, event.results, strict=True):
            item.batch = None
            if isinstance(result, SluicewayError):
                self._fail([item], result)
            elif item.id in self._ledger:
                good.items.append(item)
                good.results.append(result)
                good.queue_ms.append((batch.sent_s - item.accepted_s) * 1000)
            elif result is events.TAKEN_BACK:
                computed -= 1
        if good.items:
            self._ledger.close(good.items, "succeeded")
            self._out.append(good)
        if computed:
            worker.did(computed)
            worker.witness = True
            self._machine.computed()
            if batch.took_s is not None:
                self._rate.observe(batch.took_s, computed)
            if batch.probe:
                self._quarantine.acquit(batch.items[0])
        self._out += self._workforce.batch_over(worker, event.memory_bytes, now)

    def _raised(self, worker: Worker, batch_id: int, message: str, now: float) -> None:
        if (batch := worker.take_off(batch_id, now)) is None:
            return
        worker.did(len(batch.items))
        if batch.probe:
            self._quarantine.acquit(batch.items[0])
        wanted = self._returned(batch, "the model raised", now)
        if len(batch.items) > 1:
            middle = len(wanted) // 2
            self.retries.add([wanted[:middle], wanted[middle:]])
        else:
            # The message of the model may hold what it read: the log gets it, the client does not.
            for item in wanted:
                story = item.story(now)
                self._out.append(actions.Note(f"the model raised on an item: {message}; {story}", item.request_id))
                facts = {"story": story}
                self._fail([item], ModelFailed("the model failed on this item", metadata=facts))

    # What becomes of a dead worker's items

    def _died(self, event: events.WorkerDied, now: float) -> None:
        worker = self.workers[event.worker]
        witness = worker.witness
        lost, told = self._workforce.died(worker, event.reason, now)
        self._out += told
        if not lost:
            return
        begun = [batch for batch in lost if batch.begun_s is not None and batch.id not in event.never_reached]
        self._run_again([batch for batch in lost if batch not in begun], "the worker ended", now)
        if begun and begun[0].probe:
            self._judge(begun[0], event, now, witness=witness)
            return
        suspects: list[Item] = []
        for batch in begun:
            suspects += self._returned(batch, event.reason, now)
            for ghost in batch.items:
                if ghost.id not in self._ledger:
                    # Not worth computing now, but if it comes back it must not take others with it.
                    self._quarantine.remember(ghost, Verdict.SUSPECT, now)
        self.retries.add([(item,) for item in suspects], probe=True)

    def _judge(self, batch: Batch, event: events.WorkerDied, now: float, *, witness: bool) -> None:
        """An item ended a worker while it was alone with it: is it to blame?"""
        (item,) = batch.items
        wanted = self._returned(batch, event.reason, now)
        others = bool(self._workforce.witnesses)
        verdict = self._machine.judge(item, now, witness=witness, others=others, broken=event.broken)
        if verdict is Judgement.TRY_AGAIN:
            self.retries.add([wanted], probe=True)
        elif verdict is Judgement.MACHINE:
            self._out.append(actions.Note(f"this machine is taken to be ill: {item.story(now)}", item.request_id))
            error = self._admission.machine_fault(now)
            error.metadata["story"] = item.story(now)
            self._fail(wanted, error)
        else:
            self._ledger.count("quarantined")
            guilty = quarantined(item, story=item.story(now))
            told = "item {digest} is quarantined: {story}".format(**guilty.metadata)
            self._out.append(actions.Note(told, item.request_id))
            self._fail(wanted, guilty)

    def _hand_back(self, now: float) -> None:
        """What waits on a machine that is ill is better tried elsewhere."""
        waiting = [item for item in self._ledger.all() if item.batch is None]
        self._fail(waiting, self._admission.machine_fault(now))

    def _run_again(self, batches: list[Batch], words: str, now: float) -> None:
        for batch in reversed(batches):
            self.retries.add([self._returned(batch, words, now)], probe=batch.probe)

    def _returned(self, batch: Batch, words: str, now: float) -> tuple[Item, ...]:
        """A batch comes back without its results; of its items, those that somebody waits for."""
        self._journal(batch, now, 0.0, words)
        batch.over()
        for item in batch.items:
            item.came_back(batch, words, now)
        return self._ledger.wanted(batch.items)

    # Answering

    def _expire(self, items: Iterable[Item], now: float) -> None:
        for item in items:
            where = "in the queue" if item.batch is None and item.trail is None else "during the computation"
            facts = {"story": item.story(now)}
            self._fail([item], DeadlineExceeded(f"the deadline passed {where}", metadata=facts), "expired")

    def _fail(self, items: Iterable[Item], error: SluicewayError, outcome: str = "failed") -> None:
        wanted = self._ledger.wanted(items)
        if wanted:
            self._close(wanted, outcome)
            self._out.append(actions.Fail(wanted, error))

    def _close(self, items: Sequence[Item], outcome: str) -> None:
        """These are not to be computed any more."""
        for item in items:
            if item.level is not None:
                self._queue.remove(item)
            elif item.retry is not None:
                self.retries.remove(item)
            elif item.batch is not None:
                self._unwanted.setdefault(item.batch, set()).add(item.id)
        self._ledger.close(items, outcome)

    def _recall(self) -> None:
        """Tell the workers what nobody waits for any more of what they have not begun."""
        for batch, ids in self._unwanted.items():
            in_flight = self.workers[batch.worker].in_flight
            # The first one is being computed.
            if batch in in_flight and in_flight[0] is not batch:
                positions = tuple(position for position, item in enumerate(batch.items) if item.id in ids)
                self._out.append(actions.Recall(batch.worker, batch.id, positions))
        self._unwanted.clear()
