"""Which worker gets what next."""

from __future__ import annotations

import math
from typing import NamedTuple

from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.limits import PoolLimits
from sluiceway_runtime.pool.policy.machine import Machine
from sluiceway_runtime.pool.policy.queue import FairQueue
from sluiceway_runtime.pool.policy.retries import Retries
from sluiceway_runtime.pool.policy.workers import Worker
from sluiceway_runtime.pool.policy.workforce import Workforce

__all__ = ["Handout", "Handouts"]

# Of a full batch, what is sent ahead to a busy worker at the least. Where the items of many groups wait, a batch is
# seldom full, and an accelerator would stand still after each; one of a few items gains more by waiting for others.
AHEAD_SHARE = 0.25


class Handout(NamedTuple):
    """One batch for one worker; with `probe` a suspect by itself."""

    worker: Worker
    items: tuple[Item, ...]
    probe: bool = False


class Handouts:
    """Takes batches out of what waits, for workers that have room.

    Args:
        queue: what waits for the first time.
        retries: what waits again, which goes first.
        workforce: who works.
        machine: whether it is ill.
        limits: of batches.
        credits_per_worker: batches that each may hold.
    """

    def __init__(
        self,
        queue: FairQueue,
        retries: Retries,
        workforce: Workforce,
        machine: Machine,
        *,
        limits: PoolLimits,
        credits_per_worker: int,
    ) -> None:
        self._queue = queue
        self._retries = retries
        self._workforce = workforce
        self._machine = machine
        self._limits = limits
        self._credits = credits_per_worker

    def next(self) -> Handout | None:
        """Take one out, None if nothing can be handed out now."""
        if self._machine.ill:
            return self._trial()
        if self._retries and (handout := self._suspect() or self._again()) is not None:
            return handout
        return self._queued() if self._queue else None

    def _trial(self) -> Handout | None:
        """Try a machine that is ill with one item, on one worker at a time."""
        if any(worker.in_flight for worker in self._workforce.workers):
            return None
        worker = min(self._workforce.ready, key=_warmth, default=None)
        if worker is None or (item := self._machine.next_trial()) is None:
            return None
        return Handout(worker, (item,), probe=True)

    def _suspect(self) -> Handout | None:
        if not self._may_probe():
            return None
        idle = [worker for worker in self._for_probes() if not worker.in_flight]
        retry = self._retries.first(probe=True)
        if retry is None or not idle:
            return None
        return Handout(min(idle, key=_warmth), self._retries.pop(retry), probe=True)

    def _again(self) -> Handout | None:
        retry = self._retries.first(probe=False)
        if retry is None or not (free := self._free()):
            return None
        return Handout(free[0], self._retries.pop(retry))

    def _queued(self) -> Handout | None:
        free = self._free()
        if not free:
            return None
        idle = sum([not worker.in_flight for worker in free])
        if not (idle or self._worth_sending_ahead()):
            return None
        items = 1 if free[0].on_trial else self._batch_items()
        batch = self._queue.pop_batch(
            items, self._limits.max_batch_cost, workers=max(idle, 1), mixes=self._limits.mixes
        )
        return Handout(free[0], tuple(batch))

    def _worth_sending_ahead(self) -> bool:
        """Whether so much waits that a batch may go to a worker that is busy, and the next one is a good part of it."""
        most_items, most_cost = self._limits.max_batch, self._limits.max_batch_cost or math.inf
        if len(self._queue) < most_items and self._queue.cost < most_cost:
            return False
        if self._limits.mixes:
            return True
        items, cost = self._queue.next_group()
        return items >= most_items * AHEAD_SHARE or cost >= most_cost * AHEAD_SHARE

    def _batch_items(self) -> int:
        """Most items of the next batch."""
        workers, least = len(self._workforce.ready), self._limits.side_by_side
        if least is None or workers == 1 or self._requests() >= workers:
            return self._limits.max_batch
        # Guided self-scheduling (Polychronopoulos and Kuck, 1987), with half of an equal share: items differ in length,
        # and a worker that drew short ones comes back for more while another is still at its first batch.
        return min(self._limits.max_batch, max(least, math.ceil(len(self._queue) / (2 * workers))))

    def _requests(self) -> int:
        """How many requests wait or are computed.

        As many as there are workers: each has one of its own, and nobody is helped by parts of it. The more of a
        request comes together, the less it costs. A batch counts as the request of its first item.
        """
        computed = {batch.items[0].request_id for worker in self._workforce.ready for batch in worker.in_flight}
        return self._queue.requests + sum([not self._queue.has_of(request) for request in computed])

    def _may_probe(self) -> bool:
        """Whether a suspect waits and may be risked."""
        if not self._retries or self._retries.first(probe=True) is None:
            return False
        risked = sum(worker.probing for worker in self._workforce.workers)
        return risked < max(1, len(self._workforce.ready) // 2)

    def _for_probes(self) -> list[Worker]:
        """Who is given suspects: witnesses, where there are any. What ends another one says nothing of the suspect."""
        return self._workforce.witnesses or self._workforce.ready

    def _free(self) -> list[Worker]:
        """Workers with a credit, the one whose caches are warmest first.

        If a suspect waits for an idle worker, the one that will be idle first is kept for it.
        """
        free = [
            worker
            for worker in self._workforce.ready
            # This is asked twice a batch, and nearly always of workers that have nothing or one batch.
            if not worker.in_flight or (len(worker.in_flight) < self._room(worker) and not worker.probing)
        ]
        if free and self._retries and self._may_probe():
            kept = min((worker for worker in self._for_probes() if not worker.probing), key=_warmth, default=None)
            free = [worker for worker in free if worker is not kept]
        return sorted(free, key=_warmth) if len(free) > 1 else free

    def _room(self, worker: Worker) -> int:
        return 1 if worker.on_trial else self._credits


def _warmth(worker: Worker) -> tuple[bool, int, float]:
    """Order of workers for new work: sound, least in hand, then the last to compute, whose caches are warm."""
    return worker.on_trial, len(worker.in_flight), -worker.idle_since_s
