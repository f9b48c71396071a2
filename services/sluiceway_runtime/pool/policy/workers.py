"""One worker as the scheduler sees it: what it holds, what state it is in, and when it may be started again."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice

from sluiceway_runtime.pool.policy.items import Batch
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.statistics import Ending, WorkerState

__all__ = ["Worker"]

# States in which there is a process.
ALIVE = (WorkerState.STARTING, WorkerState.READY, WorkerState.RETIRING, WorkerState.STOPPING, WorkerState.KILLED)


@dataclass(slots=True, eq=False)
class Worker:
    """A place for a worker process, kept over restarts.

    Invariant: a worker computes its batches in order, at most `overlap` at a time, so only the first `overlap` of
    `in_flight` can have begun, and only those can have killed it.
    """

    index: int
    overlap: int = 1
    state: WorkerState = WorkerState.BACKOFF
    in_flight: deque[Batch] = field(default_factory=deque)
    since_s: float = 0.0  # start of the process, or of its stopping
    idle_since_s: float = 0.0
    done_s: float = 0.0  # when it finished a batch last
    restart_at_s: float = 0.0
    failures: int = 0  # ends without a batch done in between
    witness: bool = False  # it has computed something since its last end
    recycled_s: float = -math.inf
    recycle_delay_s: float = 0.0
    starts: int = 0
    kill_reason: str = ""
    ending: Ending | None = None  # why its process is to end, or will have
    endings: Counter[Ending] = field(default_factory=Counter)
    batches: int = 0
    items: int = 0
    busy_s: float = 0.0  # with batches that are over

    @property
    def probing(self) -> bool:
        """Busy with a suspect, which must be alone."""
        return bool(self.in_flight) and self.in_flight[0].probe

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state in ALIVE

    @property
    def on_trial(self) -> bool:
        """It has ended more than once without having done anything in between: it is given one item at first."""
        return self.failures > 1

    @property
    def being_recycled(self) -> bool:
        """On its way out or back in without having failed."""
        if self.state in (WorkerState.BACKOFF, WorkerState.STARTING):
            return not self.failures
        return self.state in (WorkerState.RETIRING, WorkerState.STOPPING)

    def take(self, batch: Batch) -> None:
        """Note a batch as handed over."""
        if len(self.in_flight) < self.overlap:
            batch.begun_s = batch.sent_s
        self.in_flight.append(batch)

    def take_off(self, batch_id: int, now: float) -> Batch | None:
        """Take a batch off: the oldest, or one that could not even be sent. None if it is not here (any more)."""
        batch = next((batch for batch in self.in_flight if batch.id == batch_id), None)
        if batch is None:
            return None
        self.in_flight.remove(batch)
        if batch.begun_s is not None:
            batch.took_s = now - max(batch.begun_s, self.done_s)
            self.busy_s += batch.took_s
            self.done_s = now
        if not self.in_flight:
            self.idle_since_s = now
        for other in islice(self.in_flight, self.overlap):
            if other.begun_s is None:
                other.begun_s = now
        return batch

    def lose(self, now: float) -> list[Batch]:
        """Take everything off that it holds, which it will not compute (any more)."""
        self.busy_s = self.busy_until_s(now)
        lost = list(self.in_flight)
        self.in_flight.clear()
        return lost

    def busy_until_s(self, now: float) -> float:
        """How long it has had something to compute, over all its processes."""
        begun_s = self.in_flight[0].begun_s if self.in_flight else None
        return self.busy_s if begun_s is None else self.busy_s + now - max(begun_s, self.done_s)

    def did(self, items: int) -> None:
        """It has worked on a batch of so many items, and is still there."""
        self.batches += 1
        self.items += items
        self.failures = 0

    def may_be_recycled(self, now: float) -> bool:
        """Whether enough time has passed since it was recycled last."""
        return now >= self.recycled_s + self.recycle_delay_s

    def recycle(self, timing: Timing, now: float) -> None:
        """Note that it is replaced for its size; the sooner after the last time, the longer until the next."""
        soon = now - self.recycled_s < 4 * max(self.recycle_delay_s, timing.recycle_delay_s)
        delay_s = 2 * self.recycle_delay_s if soon else timing.recycle_delay_s
        self.recycle_delay_s = min(delay_s, timing.recycle_delay_max_s)
        self.recycled_s = now
        self.ending = Ending.MEMORY
        self.state = WorkerState.RETIRING

    def schedule_restart(self, timing: Timing, now: float) -> None:
        """Count one more failure, and wait the longer the more there were in a row."""
        self.state = WorkerState.BACKOFF
        self.failures += 1
        # The exponent is bounded, as a float power is not.
        delay_s = timing.restart_delay_s * 2.0 ** min(self.failures - 2, 30) if self.failures > 1 else 0.0
        self.restart_at_s = now + min(delay_s, timing.restart_delay_max_s)

    def wakeup_s(self, batch_timeout_s: float, start_timeout_s: float, stop_grace_s: float) -> float:
        """When this worker needs attention if nothing happens before; infinity for never."""
        match self.state:
            # First, as this is asked at every event, and nearly always of such a worker.
            case WorkerState.READY | WorkerState.RETIRING:
                begun_s = self.in_flight[0].begun_s if self.in_flight else None
                return math.inf if begun_s is None else begun_s + batch_timeout_s
            case WorkerState.STARTING:
                return self.since_s + start_timeout_s
            case WorkerState.STOPPING:
                return self.since_s + stop_grace_s
            case WorkerState.BACKOFF:
                return self.restart_at_s
            case WorkerState.KILLED | WorkerState.STOPPED:
                return math.inf
