"""One worker as the scheduler sees it: what it holds, what state it is in, and when it may be started again."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from sluiceway_runtime.pool.policy.events import Item
from sluiceway_runtime.pool.policy.limits import Timing
from sluiceway_runtime.pool.policy.statistics import WorkerState

__all__ = ["Batch", "Slot"]

# States in which there is a process.
ALIVE = (WorkerState.STARTING, WorkerState.READY, WorkerState.RETIRING, WorkerState.STOPPING, WorkerState.KILLED)


@dataclass(slots=True, eq=False)
class Batch:
    """Items on their way through a worker.

    Attributes:
        probe: a suspect by itself on a worker that holds nothing else.
        begun_s: when the worker can first have begun it, None while that many are before it that it has not.
        took_s: once it is done, its time from then, or from the end of the batch before it if that was later.
    """

    id: int
    items: tuple[Item, ...]
    probe: bool
    begun_s: float | None = None
    took_s: float | None = None


@dataclass(slots=True, eq=False)
class Slot:
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
    starts: int = 0
    kill_reason: str = ""
    batches: int = 0
    items: int = 0

    @property
    def probing(self) -> bool:
        """Busy with a suspect, which must be alone."""
        return bool(self.in_flight) and self.in_flight[0].probe

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state in ALIVE

    @property
    def being_recycled(self) -> bool:
        """On its way out or back in without having failed."""
        if self.state in (WorkerState.BACKOFF, WorkerState.STARTING):
            return not self.failures
        return self.state in (WorkerState.RETIRING, WorkerState.STOPPING)

    def take(self, batch: Batch, now: float) -> None:
        """Note a batch as handed over."""
        if len(self.in_flight) < self.overlap:
            batch.begun_s = now
        self.in_flight.append(batch)

    def finish(self, batch_id: int, now: float) -> Batch | None:
        """Take a batch off: the oldest, or one that could not even be sent. None if it is not here (any more)."""
        done = next((batch for batch in self.in_flight if batch.id == batch_id), None)
        if done is None:
            return None
        self.in_flight.remove(done)
        if done.begun_s is not None:
            done.took_s = now - max(done.begun_s, self.done_s)
            self.done_s = now
        if not self.in_flight:
            self.idle_since_s = now
        for batch in islice(self.in_flight, self.overlap):
            if batch.begun_s is None:
                batch.begun_s = now
        self.batches += 1
        self.items += len(done.items)
        self.failures = 0
        return done

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
            case WorkerState.STARTING:
                return self.since_s + start_timeout_s
            case WorkerState.READY | WorkerState.RETIRING:
                begun_s = self.in_flight[0].begun_s if self.in_flight else None
                return math.inf if begun_s is None else begun_s + batch_timeout_s
            case WorkerState.STOPPING:
                return self.since_s + stop_grace_s
            case WorkerState.BACKOFF:
                return self.restart_at_s
            case WorkerState.KILLED | WorkerState.STOPPED:
                return math.inf
