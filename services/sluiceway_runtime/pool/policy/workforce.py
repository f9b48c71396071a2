"""The lives of the workers: started, watched, replaced, recycled, stopped. The part of the scheduler without items."""

from __future__ import annotations

import math

from sluiceway_runtime.pool.policy.actions import Action, GiveUp, KillWorker, Note, StartWorker, StopWorker
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.slots import Batch, Slot
from sluiceway_runtime.pool.policy.statistics import WorkerState

__all__ = ["Workforce"]

BYTES_PER_MB = 2**20


class Workforce:
    """Decides when a worker is started, killed or stopped. Each method returns what is to be done.

    Until all workers were ready once (`complete`), a start that cannot succeed gives up the whole pool, with the
    worker's own message. After that, a worker that ends is started again for ever, with growing delays.
    """

    def __init__(self, workers: int, limits: PoolLimits, timing: Timing, overlap: int = 1) -> None:
        self.slots = [Slot(index, overlap) for index in range(workers)]
        self.complete = False
        self.deaths = 0
        self.recycled = 0
        self._limits = limits
        self._timing = timing
        self._started = False
        self._closing = False

    # What can be seen

    @property
    def ready(self) -> list[Slot]:
        """Workers that take work."""
        return [slot for slot in self.slots if slot.state is WorkerState.READY]

    @property
    def hopeless(self) -> bool:
        """No process lives, and every worker has failed to start again and again."""
        return all(not slot.alive and slot.failures >= self._timing.start_attempts for slot in self.slots)

    @property
    def stopped(self) -> bool:
        """Every process is gone and none will come."""
        return all(slot.state is WorkerState.STOPPED for slot in self.slots)

    def next_restart_s(self) -> float:
        """When the next start is tried, if no process lives."""
        return min(slot.restart_at_s for slot in self.slots)

    def wakeup_s(self) -> float:
        """When `watch` is due, infinity if nothing is waited for."""
        if not self._started:
            return math.inf
        limits, timing = self._limits, self._timing
        return min(
            slot.wakeup_s(limits.batch_timeout_s, limits.start_timeout_s, timing.stop_grace_s) for slot in self.slots
        )

    # What happens

    def start(self, now: float) -> None:
        """Let the next `watch` start every worker."""
        self._started = True
        for slot in self.slots:
            slot.restart_at_s = now

    def worker_ready(self, slot: Slot, memory_bytes: int, now: float) -> list[Action]:
        """A worker has warmed up."""
        if slot.state is not WorkerState.STARTING:
            return []  # it was told to go in the meantime
        slot.state = WorkerState.READY
        slot.idle_since_s = now
        if not self.complete and self._too_large(memory_bytes):
            return [
                GiveUp(
                    f"worker_memory_mb is {self._limits.worker_memory_mb}, but a worker needs "
                    f"{memory_bytes // BYTES_PER_MB} MB when it has just been warmed up"
                )
            ]
        if not self.complete and all(other.state is WorkerState.READY for other in self.slots):
            self.complete = True
        return []

    def setup_failed(self, slot: Slot, message: str) -> list[Action]:
        """A worker's setup raised."""
        slot.kill_reason = message
        return [] if self.complete or self._closing else [GiveUp(message)]

    def batch_over(self, slot: Slot, memory_bytes: int) -> list[Action]:
        """A worker has finished a batch: replace it if it has grown too large.

        One at a time, so that the others carry on; the next has its turn when this one's replacement is ready.
        """
        if slot.state is not WorkerState.READY or not self._too_large(memory_bytes):
            return []
        if any(other.being_recycled for other in self.slots):
            return []
        slot.state = WorkerState.RETIRING
        return [Note(f"worker {slot.index} is replaced: it has {memory_bytes // BYTES_PER_MB} MB of memory")]

    def leaving(self, slot: Slot, now: float) -> list[Batch]:
        """A worker said that it starts no further batch. Returns those it leaves, which it has not begun."""
        if slot.state in (WorkerState.READY, WorkerState.RETIRING):
            slot.state = WorkerState.STOPPING
            slot.since_s = now
        left = list(slot.in_flight)
        slot.in_flight.clear()
        return left

    def died(self, slot: Slot, reason: str, now: float) -> tuple[list[Batch], list[Action]]:
        """A process has ended. Returns the batches to be saved, those that it had begun first."""
        state, reason = slot.state, slot.kill_reason or reason
        slot.kill_reason = ""
        lost = list(slot.in_flight)
        slot.in_flight.clear()
        if self._closing:
            slot.state = WorkerState.STOPPED
            return [], []
        if state is WorkerState.STOPPING:
            self.recycled += 1
            slot.state = WorkerState.BACKOFF
            slot.restart_at_s = now
            return lost, []
        self.deaths += 1
        slot.schedule_restart(self._timing, now)
        told: list[Action] = [Note(f"worker {slot.index} ended: {reason}")]
        if not self.complete and slot.failures >= self._timing.start_attempts:
            told.append(GiveUp(f"worker {slot.index} did not start in {slot.failures} attempts: {reason}"))
        return lost, told

    def watch(self, now: float) -> list[Action]:
        """Do what is due: kill what hangs, start what is down, stop what has retired."""
        if not self._started:
            return []
        due: list[Action] = []
        for slot in self.slots:
            if slot.state is WorkerState.RETIRING and not slot.in_flight:
                due.append(self._stop(slot, now))
            at_s = slot.wakeup_s(self._limits.batch_timeout_s, self._limits.start_timeout_s, self._timing.stop_grace_s)
            if at_s > now:
                continue
            if slot.state is WorkerState.BACKOFF:
                slot.state = WorkerState.STARTING
                slot.since_s = now
                slot.starts += 1
                due.append(StartWorker(slot.index))
                continue
            if slot.state is WorkerState.STARTING:
                slot.kill_reason = f"it was not ready after {self._limits.start_timeout_s:g} s"
            elif slot.state is not WorkerState.STOPPING:
                slot.kill_reason = f"it computed one batch for more than {self._limits.batch_timeout_s:g} s"
            # A worker that ignored SIGTERM was going anyway; one that hangs counts as dead.
            slot.state = WorkerState.KILLED
            due.append(KillWorker(slot.index))
        return due

    def close(self, now: float) -> list[Action]:
        """Stop every worker and start none."""
        self._closing = True
        told: list[Action] = []
        for slot in self.slots:
            if slot.state in (WorkerState.STARTING, WorkerState.READY, WorkerState.RETIRING):
                told.append(self._stop(slot, now))
            elif not slot.alive:
                slot.state = WorkerState.STOPPED
        return told

    def _stop(self, slot: Slot, now: float) -> Action:
        slot.state = WorkerState.STOPPING
        slot.since_s = now
        return StopWorker(slot.index)

    def _too_large(self, memory_bytes: int) -> bool:
        limit_mb = self._limits.worker_memory_mb
        return limit_mb is not None and memory_bytes > limit_mb * BYTES_PER_MB
