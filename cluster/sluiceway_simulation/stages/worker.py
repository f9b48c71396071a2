"""Workers that take the time of a profile and no processor: the real pool has them in place of processes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.pool import Pool, PoolLimits, Submission, Timing, WorkerSpec, WorkerState
from sluiceway_runtime.pool.execution import Waiting
from sluiceway_runtime.pool.policy.events import Event
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.transport.link import End, Ended, Heard, Link
from sluiceway_runtime.pool.transport.messages import Leaving, Raised, Ready, Recall, Run

from sluiceway_simulation.machine import Job, Machine
from sluiceway_simulation.stages.models import Computed, Model
from sluiceway_simulation.stages.pictures import Harm
from sluiceway_simulation.stages.profile import Profile

__all__ = ["SimulatedPool", "SimulatedWorker", "WatchedPool", "Workbench"]


@dataclass(slots=True)
class Workbench:
    """What the workers of one server have in common; faults change it.

    Attributes:
        slowness: by which every time is multiplied from now on.
        broken: why no worker of this server can be started; empty if it can.
        watched: told of every item that begins to be computed: is it overdue by that much?
        workers: that are alive.
        front_busy_s: for which the server's front has computed.
        machine: whose cores the workers and the front share with others; None where they have cores of their own.
        on_device: whether the workers have a device of their own all the same.
    """

    model: Model
    profile: Profile
    chance: random.Random
    watched: Callable[[str], None]
    slowness: float = 1.0
    broken: str = ""
    computed: int = 0
    busy_s: float = 0.0
    front_busy_s: float = 0.0
    workers: list[SimulatedWorker] = field(default_factory=list)
    machine: Machine | None = None
    on_device: bool = False


class SimulatedWorker:
    """Implements `Link`. What it tells takes a turn of the loop at least, as through a socket."""

    pid: int | None = None

    def __init__(self, bench: Workbench, placement: Placement, overlap: int, heard: Heard, ended: Ended) -> None:
        self._bench = bench
        self._heard = heard
        self._ended = ended
        self._overlap = overlap
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._waiting: dict[int, Waiting] = {}
        self._begun: deque[_Begun] = deque()
        self._free_s = 0.0
        self._stopping = self._ready = self._hangs = False
        self.index = placement.index
        self._threads = placement.threads
        bench.workers.append(self)
        self._timer = self._loop.call_later(bench.profile.start_s * bench.slowness, self._started)

    def __repr__(self) -> str:
        return f"<SimulatedWorker {self.index} begun={len(self._begun)} waiting={len(self._waiting)}>"

    # What the pool does with it.

    def send(self, run: Run) -> None:
        """A batch comes. It is begun at once where none is before it: that tells nobody anything."""
        if not self._over.is_set():
            self._waiting[run.batch_id] = Waiting(run)
            self._begin()

    def recall(self, recall: Recall) -> None:
        """Of a batch that was not begun, these items are not computed."""
        self._loop.call_soon(self._recalled, recall)

    def stop(self) -> None:
        """Finish what was begun, and leave."""
        self._loop.call_soon(self._leave)

    def kill(self) -> None:
        """End now."""
        self._loop.call_soon(self.die, "it was ended by SIGKILL")

    async def wait_ended(self) -> None:
        """Until it is gone."""
        await self._over.wait()

    # What faults do to it.

    def hang(self) -> None:
        """Answer no more."""
        self._hangs = True
        for begun in self._begun:
            begun.stop()

    def go_on(self) -> None:
        """Compute what comes from now on. What it had begun stays as it is: one that had work is replaced for that."""
        self._hangs = bool(self._begun)

    def die(self, reason: str) -> None:
        """The process is gone; nothing that it had is answered."""
        if self._over.is_set():
            return
        self._over.set()
        self._timer.cancel()
        self._bench.workers.remove(self)
        for begun in self._begun:
            begun.stop()
        self._ended(End(reason, frozenset(self._waiting)))

    # Its own life.

    def _started(self) -> None:
        if self._bench.broken:
            self.die(self._bench.broken)
            return
        self._ready = True
        self._heard(Ready({}, self._bench.profile.memory_bytes))

    def _recalled(self, recall: Recall) -> None:
        if (waiting := self._waiting.get(recall.batch_id)) is not None:
            waiting.drop(recall.positions)

    def _begin(self) -> None:
        while self._waiting and len(self._begun) < self._overlap and not self._stopping:
            waiting = self._waiting.pop(next(iter(self._waiting)))
            bench = self._bench
            if not waiting.batch:
                # As a real worker, which hears that nothing of it is wanted once it has finished what it is at.
                self._heard(waiting.result((), 0.0, bench.profile.memory_bytes))
                continue
            computed = [bench.model.compute(item) for item in waiting.batch]
            seconds = bench.profile.batch_s([item.width_px for item in computed], bench.chance) * bench.slowness
            # Batches overlap on the way to the device and are computed one after the other.
            begun_s = max(self._free_s, self._loop.time())
            self._free_s = begun_s + seconds
            bench.busy_s += seconds
            self._begun.append(_Begun(waiting, computed, None if self._hangs else self._compute(seconds)))

    def _compute(self, seconds: float) -> asyncio.TimerHandle | Job:
        if self._bench.machine is None or self._bench.on_device:
            return self._loop.call_at(self._free_s, self._finish, seconds)
        return self._bench.machine.begin(seconds, self._threads, partial(self._finish, seconds))

    def _finish(self, seconds: float) -> None:
        waiting, computed, _ = self._begun[0]
        harms = {item.harm for item in computed}
        if Harm.KILLS in harms:
            self.die("it was ended by SIGSEGV")
            return
        self._begun.popleft()
        self._bench.computed += len(computed)
        if Harm.RAISES in harms:
            self._heard(Raised(waiting.id, "ValueError: the item says that it raises"))
        else:
            results = [item.result for item in computed]
            self._heard(waiting.result(results, seconds * 1000, self._bench.profile.memory_bytes))
        if self._over.is_set():
            return
        if self._stopping and not self._begun:
            self._leave()
        else:
            self._begin()

    def _leave(self) -> None:
        """Go once what was begun is answered."""
        self._stopping = True
        if self._begun or self._over.is_set():
            return
        if self._ready:
            self._heard(Leaving())
        self.die("it exited with code 0")


class _Begun(NamedTuple):
    """A batch that is computed; without a timer it never ends."""

    waiting: Waiting
    computed: Sequence[Computed]
    timer: asyncio.TimerHandle | Job | None

    def stop(self) -> None:
        """Compute it no further."""
        if self.timer is not None:
            self.timer.cancel()


class SimulatedPool(Pool):
    """The real pool with other workers."""

    def __init__(
        self,
        spec: WorkerSpec,
        limits: PoolLimits,
        *,
        name: str,
        bench: Workbench,
        timing: Timing | None = None,
    ) -> None:
        super().__init__(spec, limits, name=name, timing=timing)
        self._bench = bench

    @property
    def is_ready(self) -> bool:
        """Whether a worker can take work."""
        return any(worker.state is WorkerState.READY for worker in self._scheduler.workers)

    @property
    def leftovers(self) -> str:
        """What it still owes; empty if nothing."""
        owed = self._scheduler.unanswered
        return f"{owed} items are unanswered" if owed else ""

    @property
    def idle_for_no_reason(self) -> int:
        """Workers that have nothing to do while items wait.

        One may be kept for a suspect, which runs alone. A suspect itself waits for a worker that has computed since its
        last end, as long as there is one: what ends another says nothing of it.
        """
        scheduler = self._scheduler
        ready = [worker for worker in scheduler.workers if worker.state is WorkerState.READY]
        # What was submitted in this moment is dispatched on the next turn, with what else comes in it.
        if self._tick_due or any(worker.probing for worker in scheduler.workers) or not scheduler.queued:
            return 0
        if scheduler.queued == scheduler.retries.suspects:
            ready = [worker for worker in ready if worker.witness] or ready
        return sum(not worker.in_flight for worker in ready)

    def _launch(self, placement: Placement, heard: Heard, ended: Ended) -> Link:
        return SimulatedWorker(self._bench, placement, self._spec.overlap, heard, ended)


class WatchedPool(SimulatedPool):
    """One of which every step is looked at: what it computes must still be wanted, and nothing is lost."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._withdrawn: set[int] = set()

    @property
    def lost(self) -> int:
        """Items that are owed an answer, and neither wait nor are with a worker."""
        scheduler = self._scheduler
        with_workers = sum(len(batch.items) for worker in scheduler.workers for batch in worker.in_flight)
        return max(0, scheduler.unanswered - scheduler.queued - with_workers)

    def _feed(self, *happened: Event) -> None:
        super()._feed(*happened)
        if not self._feeding and self.lost:
            self._bench.watched(f"{self.lost} items are lost after {type(happened[-1]).__name__}")

    def _cancel(self, submission: Submission) -> None:
        self._withdrawn.update(submission.item_ids)
        super()._cancel(submission)

    def _dispatch(self, worker: int, batch_id: int, items: Sequence[Item]) -> None:
        now_s = self._clock.now_s()
        for item in items:
            late_s = now_s - item.deadline_s
            if item.id in self._withdrawn:
                self._bench.watched(f"item {item.id} goes to worker {worker}, and was withdrawn")
            if late_s >= 0:
                self._bench.watched(f"item {item.id} goes to worker {worker} {late_s:.3f} s after its deadline")
        if not 1 <= len(items) <= self.limits.max_batch:
            self._bench.watched(f"a batch of {len(items)} goes to worker {worker}")
        super()._dispatch(worker, batch_id, items)
