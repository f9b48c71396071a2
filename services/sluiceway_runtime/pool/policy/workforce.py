"""The lives of the workers: started, watched, replaced, recycled, stopped. The part of the scheduler without items."""

from __future__ import annotations

import math

from sluiceway_runtime.pool.policy.actions import Action, GiveUp, KillWorker, Note, StartWorker, StopWorker
from sluiceway_runtime.pool.policy.items import Batch
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.statistics import Ending, WorkerState
from sluiceway_runtime.pool.policy.workers import Worker

__all__ = ["Workforce"]

BYTES_PER_MB = 2**20


class Workforce:
    """Decides when a worker is started, killed or stopped. Each method returns what is to be done.

    Until all workers were ready once (`complete`), a start that cannot succeed gives up the whole pool, with the
    worker's own message. After that, a worker that ends is started again for ever, with growing delays.
    """

    def __init__(self, count: int, limits: PoolLimits, timing: Timing, overlap: int = 1) -> None:
        self.workers = [Worker(index, overlap) for index in range(count)]
        self.complete = False
        self.deaths = 0
        self.recycled = 0
        self._limits = limits
        self._timing = timing
        self._started = False
        self._closing = False

    # What can be seen

    @property
    def ready(self) -> list[Worker]:
        """Workers that take work."""
        return [worker for worker in self.workers if worker.state is WorkerState.READY]

    @property
    def has_ready(self) -> bool:
        """Whether a worker takes work. A loop, as each call asks for it several times."""
        for worker in self.workers:  # noqa: SIM110
            if worker.state is WorkerState.READY:
                return True
        return False

    @property
    def witnesses(self) -> list[Worker]:
        """Of those, who has computed something since its last end."""
        return [worker for worker in self.ready if worker.witness]

    @property
    def hopeless(self) -> bool:
        """No worker takes work, and none is on its way back from being replaced in good order."""
        return not any(worker.state is WorkerState.READY or worker.being_recycled for worker in self.workers)

    @property
    def stopped(self) -> bool:
        """Every process is gone and none will come."""
        return all(worker.state is WorkerState.STOPPED for worker in self.workers)

    def next_restart_s(self, now: float) -> float:
        """When the next start is tried; `now` where one is under way."""
        waiting = [worker.restart_at_s for worker in self.workers if worker.state is WorkerState.BACKOFF]
        return now if len(waiting) < len(self.workers) else min(waiting)

    def wakeup_s(self) -> float:
        """When `watch` is due, infinity if nothing is waited for."""
        if not self._started:
            return math.inf
        limits, timing = self._limits, self._timing
        earliest_s = math.inf
        for worker in self.workers:
            if worker.state is WorkerState.READY and not worker.in_flight:
                continue  # nothing is waited for; this is asked at every event
            at_s = worker.wakeup_s(limits.batch_timeout_s, limits.start_timeout_s, timing.stop_grace_s)
            earliest_s = min(earliest_s, at_s)
        return earliest_s

    # What happens

    def start(self, now: float) -> None:
        """Let the next `watch` start every worker."""
        self._started = True
        for worker in self.workers:
            worker.restart_at_s = now

    def worker_ready(self, worker: Worker, memory_bytes: int, now: float) -> list[Action]:
        """A worker has warmed up."""
        if worker.state is not WorkerState.STARTING:
            return []  # it was told to go in the meantime
        worker.state = WorkerState.READY
        worker.idle_since_s = now
        if not self.complete and self._too_large(memory_bytes):
            return [
                GiveUp(
                    f"worker_memory_mb is {self._limits.worker_memory_mb}, but a worker needs "
                    f"{memory_bytes // BYTES_PER_MB} MB when it has just been warmed up"
                )
            ]
        if not self.complete and all(other.state is WorkerState.READY for other in self.workers):
            self.complete = True
        return []

    def setup_failed(self, worker: Worker, message: str) -> list[Action]:
        """A worker's setup raised."""
        worker.kill_reason = message
        worker.ending = Ending.START
        return [] if self.complete or self._closing else [GiveUp(message)]

    def batch_over(self, worker: Worker, memory_bytes: int, now: float) -> list[Action]:
        """A worker has finished a batch: replace it if it has grown too large.

        One at a time, so that the others carry on; the next has its turn when this one's replacement is ready. One that
        is too large again soon after its start needs that much, so it is replaced less and less often.
        """
        if worker.state is not WorkerState.READY or not self._too_large(memory_bytes):
            return []
        if not worker.may_be_recycled(now) or any(other.being_recycled for other in self.workers):
            return []
        worker.recycle(self._timing, now)
        return [Note(f"worker {worker.index} is replaced: it has {memory_bytes // BYTES_PER_MB} MB of memory")]

    def leaving(self, worker: Worker, now: float) -> list[Batch]:
        """A worker said that it starts no further batch. Returns those it leaves, which it has not begun."""
        if worker.state in (WorkerState.READY, WorkerState.RETIRING):
            worker.state = WorkerState.STOPPING
            worker.since_s = now
            worker.ending = worker.ending or Ending.TOLD
        return worker.lose(now)

    def died(self, worker: Worker, reason: str, now: float) -> tuple[list[Batch], list[Action]]:
        """A process has ended. Returns the batches to be saved, those that it had begun first."""
        state, reason = worker.state, worker.kill_reason or reason
        worker.kill_reason = ""
        worker.endings[worker.ending or Ending.DIED] += 1
        worker.ending = None
        lost = worker.lose(now)
        worker.witness = False
        if self._closing:
            worker.state = WorkerState.STOPPED
            return [], []
        if state is WorkerState.STOPPING:
            self.recycled += 1
            worker.state = WorkerState.BACKOFF
            worker.restart_at_s = now
            return lost, []
        self.deaths += 1
        worker.schedule_restart(self._timing, now)
        told: list[Action] = [Note(f"worker {worker.index} ended: {reason}")]
        begun = (item.request_id for batch in lost if batch.begun_s is not None for item in batch.items)
        told += [Note(f"it was with worker {worker.index} when that ended", name) for name in dict.fromkeys(begun)]
        if not self.complete and worker.failures >= self._timing.start_attempts:
            told.append(GiveUp(f"worker {worker.index} did not start in {worker.failures} attempts: {reason}"))
        return lost, told

    def watch(self, now: float) -> list[Action]:
        """Do what is due: kill what hangs, start what is down, stop what has retired."""
        if not self._started:
            return []
        due: list[Action] = []
        for worker in self.workers:
            if not worker.in_flight:
                if worker.state is WorkerState.READY:
                    continue
                if worker.state is WorkerState.RETIRING:
                    due.append(self._stop(worker, now))
            at_s = worker.wakeup_s(
                self._limits.batch_timeout_s, self._limits.start_timeout_s, self._timing.stop_grace_s
            )
            if at_s > now:
                continue
            if worker.state is WorkerState.BACKOFF:
                worker.state = WorkerState.STARTING
                worker.since_s = now
                worker.starts += 1
                due.append(StartWorker(worker.index))
                continue
            if worker.state is WorkerState.STARTING:
                worker.kill_reason = f"it was not ready after {self._limits.start_timeout_s:g} s"
                worker.ending = Ending.START
            elif worker.state is not WorkerState.STOPPING:
                worker.kill_reason = f"it computed one batch for more than {self._limits.batch_timeout_s:g} s"
                worker.ending = Ending.HUNG
            # A worker that ignored SIGTERM was going anyway; one that hangs counts as dead.
            worker.state = WorkerState.KILLED
            due.append(KillWorker(worker.index))
        return due

    def close(self, now: float) -> list[Action]:
        """Stop every worker and start none."""
        self._closing = True
        told: list[Action] = []
        for worker in self.workers:
            if worker.state in (WorkerState.STARTING, WorkerState.READY, WorkerState.RETIRING):
                told.append(self._stop(worker, now))
            elif not worker.alive:
                worker.state = WorkerState.STOPPED
        return told

    def _stop(self, worker: Worker, now: float) -> Action:
        worker.state = WorkerState.STOPPING
        worker.since_s = now
        return StopWorker(worker.index)

    def _too_large(self, memory_bytes: int) -> bool:
        limit_mb = self._limits.worker_memory_mb
        return limit_mb is not None and memory_bytes > limit_mb * BYTES_PER_MB
