"""Whatever happens in whatever order: one answer each, no item in two places, no limit passed, nobody forgotten."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from named_payload import Named
from sluiceway_runtime.errors import InvalidImage, SluicewayError, Unavailable
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.machine import TRIAL_ID
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.priority import Priority

BATCH_TIMEOUT_S = 5.0


CONTENTS = st.sampled_from(["plain", "odd", "deadly", "late"])


class PoolModel(RuleBasedStateMachine):
    """Plays the workers and the callers; keeps its own ledger, as a caller would."""

    @initialize(
        workers=st.integers(1, 4),
        credits_each=st.integers(1, 3),
        max_batch=st.integers(1, 5),
        max_cost=st.none() | st.integers(3, 9),
        queue_items=st.integers(1, 12),
        overlap=st.integers(1, 3),
        mixes=st.booleans(),
    )
    def start(self, workers, credits_each, max_batch, max_cost, queue_items, overlap, mixes):
        self.now = 0.0
        self.credits = credits_each
        self.limits = PoolLimits(
            max_batch=max_batch,
            max_batch_cost=max_cost,
            mixes=mixes,
            queue_items=queue_items,
            queue_bytes=60,
            batch_timeout_s=BATCH_TIMEOUT_S,
            worker_memory_mb=100,
        )
        timing = Timing(ageing_s=1.0, restart_delay_s=0.1, restart_delay_max_s=1.0, stop_grace_s=1.0)
        overlap = min(overlap, credits_each)
        self.scheduler = Scheduler(workers, credits_each, self.limits, timing, overlap=overlap)
        self.items: dict[int, Item] = {}
        self.accepted: set[int] = set()
        self.outcomes: Counter[int] = Counter()
        self.holding: dict[int, list[tuple[int, tuple[int, ...]]]] = {index: [] for index in range(workers)}
        self.alive: dict[int, str] = {}
        self.recalled: dict[int, set[int]] = {}
        self.last_id = 0
        self.feed(events.StartRequested())
        for worker in range(workers):
            self.ready(worker)

    def feed(self, event):
        for action in self.scheduler.on_event(event, self.now):
            match action:
                case actions.Dispatch(worker, batch_id, items):
                    item_ids = tuple(item.id for item in items)
                    self.check_dispatch(worker, item_ids)
                    self.holding[worker].append((batch_id, item_ids))
                case actions.Refuse(items, _):
                    for item in items:
                        assert item.id not in self.accepted
                        self.items.pop(item.id)
                case actions.Succeed(items, results):
                    assert results == [f"result {item.id}" for item in items]
                    for item in items:
                        self.end(item.id)
                case actions.Fail(items, error):
                    assert isinstance(error, SluicewayError)
                    for item in items:
                        self.end(item.id)
                case actions.Recall(worker, batch_id, positions):
                    batches = dict(self.holding[worker])
                    assert all(self.outcomes[batches[batch_id][position]] for position in positions), "somebody waits"
                    assert batch_id != self.holding[worker][0][0], "it is being computed"
                    self.recalled.setdefault(batch_id, set()).update(positions)
                case actions.StartWorker(worker):
                    assert worker not in self.alive, "two processes for one worker"
                    self.alive[worker] = "starting"
                case actions.StopWorker(worker):
                    assert not self.holding[worker], "a worker was stopped with work in hand"
                    self.alive[worker] = "leaving"
                case actions.KillWorker(worker):
                    self.alive[worker] = "killed"

    def end(self, item_id):
        assert item_id in self.accepted
        self.outcomes[item_id] += 1

    def check_dispatch(self, worker, item_ids):
        if item_ids == (TRIAL_ID,):
            assert not self.scheduler.able
            assert not self.busy(), "an ill machine is tried on one worker at a time"
            return
        held = [item for batches in self.holding.values() for _, batch in batches for item in batch]
        items = [self.items[item_id] for item_id in item_ids]
        assert self.alive[worker] == "ready"
        assert len(self.holding[worker]) < self.credits
        assert not set(item_ids) & set(held), "an item is with two workers"
        assert len(set(item_ids)) == len(item_ids) <= self.limits.max_batch
        assert self.limits.mixes or len({item.group for item in items}) == 1
        cost = sum(item.cost for item in items)
        assert len(items) == 1 or self.limits.max_batch_cost is None or cost <= self.limits.max_batch_cost
        assert all(self.outcomes[item_id] == 0 for item_id in item_ids), "computed, but nobody waits"
        assert all(item.deadline_s > self.now for item in items), "computed, but too late"

    def ready(self, worker):
        self.alive[worker] = "ready"
        self.feed(events.WorkerReady(worker))

    def die(self, worker, *, broken=False):
        # The last one may have been sent to a process that was dead already.
        undelivered = frozenset(batch_id for batch_id, _ in self.holding[worker][-1:] if batch_id % 2)
        self.holding[worker].clear()
        del self.alive[worker]
        self.feed(events.WorkerDied(worker, "it was ended by SIGKILL", undelivered, broken))

    def workers_with(self, state):
        return [worker for worker, is_in in self.alive.items() if is_in == state]

    def busy(self):
        return [worker for worker, batches in self.holding.items() if batches]

    @rule(
        count=st.integers(1, 4),
        request=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        group=st.sampled_from([None, 1, "wide"]),
        cost=st.integers(1, 12),
        size=st.integers(0, 30),
        within=st.floats(0.0, 20.0),
        content=CONTENTS,
    )
    def submit(self, count, request, priority, group, cost, size, within, content):
        # Sizes vary so that the contents met again are few enough not to be all in quarantine.
        items = [
            Item(
                self.last_id + number,
                request,
                self.now + within,
                priority,
                group,
                cost,
                size,
                Named(f"{content}{size}"),
            )
            for number in range(1, count + 1)
        ]
        self.last_id += count
        self.items |= {item.id: item for item in items}
        before = self.scheduler.counters.accepted
        self.feed(events.ItemsArrived(items))
        taken = {item.id for item in items if item.id in self.items}
        assert self.scheduler.counters.accepted == before + len(taken)
        self.accepted |= taken

    @rule(seconds=st.floats(0.0, 2.0))
    def tick(self, seconds):
        self.now += seconds
        self.feed(events.Tick())

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data):
        item_id = data.draw(st.sampled_from(sorted(self.accepted)))
        before = self.scheduler.counters.cancelled
        # Noted first, as what follows is about an item that nobody waits for. One that is due is answered as late.
        open_before = not self.outcomes[item_id] and self.items[item_id].deadline_s > self.now
        self.outcomes[item_id] += open_before
        self.feed(events.CancelRequested([item_id]))
        assert self.scheduler.counters.cancelled == before + open_before

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(), memory_mb=st.sampled_from([1, 1, 1, 200]), fault=st.sampled_from(["", "", "one", "all", "lost"])
    )
    def finish(self, data, memory_mb, fault):
        worker = data.draw(st.sampled_from(self.busy()))
        batch_id, item_ids = self.holding[worker].pop(0)
        if fault == "all":
            self.feed(events.BatchRaised(worker, batch_id, "boom"))
        elif fault == "lost":
            self.feed(events.BatchLost(worker, batch_id, Unavailable("lost")))
        else:
            # It had begun some of what was recalled before it heard of it, or not.
            taken_back = self.recalled.get(batch_id, set()) if batch_id % 3 else set()
            results = [
                events.TAKEN_BACK if position in taken_back else f"result {item_id}"
                for position, item_id in enumerate(item_ids)
            ]
            if fault == "one" and results[0] is not events.TAKEN_BACK:
                results[0] = InvalidImage("no")
            self.feed(events.BatchDone(worker, batch_id, tuple(results), 1.0, memory_mb * 2**20))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def crash(self, data):
        self.die(data.draw(st.sampled_from(sorted(self.alive))), broken=data.draw(st.booleans()))

    @precondition(lambda self: self.workers_with("starting"))
    @rule(data=st.data())
    def become_ready(self, data):
        self.ready(data.draw(st.sampled_from(self.workers_with("starting"))))

    @precondition(lambda self: self.workers_with("ready"))
    @rule(data=st.data())
    def leave(self, data):
        worker = data.draw(st.sampled_from(self.workers_with("ready")))
        self.alive[worker] = "leaving"
        self.holding[worker].clear()
        self.feed(events.WorkerLeaving(worker))

    @invariant()
    def nobody_is_answered_twice(self):
        if hasattr(self, "outcomes"):
            assert all(count == 1 for count in self.outcomes.values() if count)

    @invariant()
    def the_books_balance(self):
        if hasattr(self, "scheduler"):
            open_items = len(self.accepted) - sum(self.outcomes.values())
            assert self.scheduler.unanswered == open_items
            with_workers = {item for batches in self.holding.values() for _, batch in batches for item in batch}
            with_workers.discard(TRIAL_ID)
            wanted = sum(1 for item in with_workers if not self.outcomes[item])
            assert self.scheduler.queued == open_items - wanted
            waiting = [item for item in self.accepted if not self.outcomes[item] and item not in with_workers]
            assert self.scheduler.queued_bytes == sum(self.items[item].size_bytes for item in waiting)
            # Beyond the bound there are at most those that came back from workers.
            in_flight_most = len(self.holding) * self.credits * self.limits.max_batch
            assert self.scheduler.queued <= self.limits.queue_items + in_flight_most

    @invariant()
    def no_idle_worker_beside_waiting_work(self):
        """Nothing waits after an event while a healthy worker idles, but for suspects kept to half the workers."""
        if not hasattr(self, "scheduler"):
            return
        self.feed(events.Tick())
        healthy = self.workers_with("ready")
        if self.scheduler.queued and len(healthy) == len(self.holding):
            assert any(self.holding[worker] for worker in healthy)

    def teardown(self):
        """From any state the work that is left is done: healthy workers, and time enough only for what they need."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2000):
            if not self.scheduler.unanswered:
                break
            for worker in list(self.alive):
                if self.alive[worker] == "starting":
                    self.ready(worker)
                elif self.alive[worker] in ("leaving", "killed"):
                    self.die(worker)
            for worker in self.busy():
                batch_id, item_ids = self.holding[worker].pop(0)
                self.feed(events.BatchDone(worker, batch_id, tuple(f"result {item_id}" for item_id in item_ids)))
            self.now += 0.001
            wakeup = self.scheduler.next_wakeup(self.now)
            if not self.alive and wakeup is not None:
                self.now = wakeup
            self.feed(events.Tick())
        assert self.scheduler.unanswered == 0, "an accepted item was forgotten"
        assert all(self.outcomes[item_id] == 1 for item_id in self.accepted)


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
