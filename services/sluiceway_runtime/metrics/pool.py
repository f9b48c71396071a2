"""A worker pool: how long work waits, how much of it, what became of it, and what each worker does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from sluiceway_runtime.control_groups import PROC, text_of
from sluiceway_runtime.metrics.gpu import GpuCollector
from sluiceway_runtime.metrics.instruments import Family, Histograms, counter, gauge
from sluiceway_runtime.metrics.waits import WAITS
from sluiceway_runtime.pool import Pool
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.statistics import Ending, PoolStatistics, WorkerState

__all__ = ["FAMILIES", "PoolCollector", "PoolMetrics", "show_pool"]

_STAGE = ("stage",)
_WORKER = ("stage", "worker")

QUEUED = Family("sluiceway_pool_queued_items", "gauge", "Items that wait for a worker.", _STAGE)
RUNNING = Family("sluiceway_pool_running_items", "gauge", "Items that are with the workers.", _STAGE)
CAPACITY = Family(
    "sluiceway_pool_capacity_items",
    "gauge",
    "Items that the ready workers can hold at once; 0 while the machine is taken to be ill.",
    _STAGE,
)
QUEUED_BYTES = Family("sluiceway_pool_queued_bytes", "gauge", "Bytes of the items that wait.", _STAGE)
OLDEST = Family(
    "sluiceway_pool_queue_seconds",
    "gauge",
    "How long the item has waited that waits the longest, in the queue or behind a batch that its worker computes: "
    "while workers hang, it grows. 0 while nothing waits.",
    _STAGE,
)
ITEM = Family(
    "sluiceway_pool_item_seconds", "gauge", "What one item takes one worker, its share of a batch, of late.", _STAGE
)
ABLE = Family(
    "sluiceway_pool_able",
    "gauge",
    "1 while a worker takes work, on a machine that is not taken to be ill; work is refused otherwise.",
    _STAGE,
)
EVENTS = Family(
    "sluiceway_pool_events",
    "counter",
    "What became of items: `accepted`, `refused`, and of the accepted `succeeded`, `failed`, `expired`, `cancelled`; "
    "of the failed `quarantined`. Of workers: `batches` handed out, `deaths`, and those `recycled` for their size or "
    "because somebody told them to end.",
    ("stage", "event"),
)
WAIT = Family(
    "sluiceway_pool_wait_seconds",
    "histogram",
    "How long items waited in the stage, until they went to a worker or their time ran out.",
    _STAGE,
)
BATCH = Family("sluiceway_pool_batch_items", "histogram", "Items of a batch, as it is handed out.", _STAGE)
COMPUTE = Family("sluiceway_pool_compute_seconds", "histogram", "What a worker took for a batch.", _STAGE)
STATE = Family(
    "sluiceway_worker_state",
    "gauge",
    "1 for the state that a worker is in, 0 for the others: `starting`, `ready`, `retiring` (finishes what it holds "
    "and is replaced), `stopping`, `killed`, `backoff` (between two processes), `stopped`.",
    (*_WORKER, "state"),
)
BUSY = Family(
    "sluiceway_worker_busy_seconds",
    "counter",
    "How long a worker has had a batch to compute, the present one included. Its rate is the busy share.",
    _WORKER,
)
ITEMS = Family("sluiceway_worker_items", "counter", "Items that a worker computed.", _WORKER)
BATCHES = Family("sluiceway_worker_batches", "counter", "Batches that a worker computed.", _WORKER)
RESTARTS = Family(
    "sluiceway_worker_restarts",
    "counter",
    "Times that the process of a worker ended and another was to follow, and why: it `died`, was `hung` (computed one "
    "batch longer than `batch_timeout_s`), did not `start`, had grown above `worker_memory_mb` (`memory`), or was "
    "`told` to end by somebody.",
    (*_WORKER, "reason"),
)
MEMORY = Family(
    "sluiceway_worker_memory_bytes",
    "gauge",
    "Resident memory of a worker, what it shares with others included.",
    _WORKER,
)
GRAPHS = Family(
    "sluiceway_gpu_graphs",
    "gauge",
    "Graphs of a model that a worker holds ready on its GPU: `compiled`, or `plain`, which compute at about half the "
    "speed.",
    (*_WORKER, "kind"),
)
FAMILIES = (
    QUEUED,
    RUNNING,
    CAPACITY,
    QUEUED_BYTES,
    OLDEST,
    ITEM,
    ABLE,
    EVENTS,
    WAIT,
    BATCH,
    COMPUTE,
    STATE,
    BUSY,
    ITEMS,
    BATCHES,
    RESTARTS,
    MEMORY,
    GRAPHS,
)

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class PoolMetrics:
    """What is noted as it happens; implements `pool.PoolObserver`."""

    def __init__(self, stage: str, registry: CollectorRegistry) -> None:
        waits, batches, computed = Histograms(WAIT, WAITS), Histograms(BATCH, _BATCHES), Histograms(COMPUTE)
        for family in (waits, batches, computed):
            registry.register(family)
        self._waits, self._batches, self._computed = waits.of(stage), batches.of(stage), computed.of(stage)

    def dispatched(self, items: Sequence[Item], now_s: float) -> None:
        """A batch goes to a worker."""
        self._batches.observe(len(items))
        for item in items:
            self._waits.observe(now_s - item.accepted_s)

    def expired(self, items: Sequence[Item], now_s: float) -> None:
        """The time of items ran out; what is with a worker, or was, waited until then."""
        for item in items:
            if item.batch is None and item.trail is None:
                self._waits.observe(now_s - item.accepted_s)

    def computed(self, seconds: float) -> None:
        """A worker has done a batch."""
        self._computed.observe(seconds)


class PoolCollector(Collector):
    """Reads a pool when it is scraped, while it starts as well.

    Args:
        stage: its name.
        statistics: how the pool is.
        facts: what the workers said of themselves.
        proc: the proc file system.
    """

    def __init__(
        self,
        stage: str,
        statistics: Callable[[], PoolStatistics],
        facts: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
        proc: Path = PROC,
    ) -> None:
        self._stage = stage
        self._statistics = statistics
        self._facts = facts
        self._proc = proc

    def collect(self) -> Iterable[Metric]:
        """Read it once."""
        pool, stage = self._statistics(), (self._stage,)
        for family, value in (
            (QUEUED, pool.queued),
            (RUNNING, pool.running),
            (CAPACITY, pool.capacity),
            (QUEUED_BYTES, pool.queued_bytes),
            (OLDEST, pool.oldest_wait_s),
            (ITEM, pool.item_ms / 1000),
            (ABLE, float(pool.able)),
        ):
            yield gauge(family, [(stage, value)])
        yield counter(EVENTS, [((self._stage, event), total) for event, total in pool.totals().items()])
        workers = [((self._stage, str(worker.index)), worker) for worker in pool.workers]
        yield gauge(
            STATE,
            [
                ((*names, state.value), float(worker.state is state))
                for names, worker in workers
                for state in WorkerState
            ],
        )
        yield counter(BUSY, [(names, worker.busy_s) for names, worker in workers])
        yield counter(ITEMS, [(names, worker.items) for names, worker in workers])
        yield counter(BATCHES, [(names, worker.batches) for names, worker in workers])
        yield counter(
            RESTARTS,
            [((*names, ending.value), worker.endings.get(ending, 0)) for names, worker in workers for ending in Ending],
        )
        memory = [(names, _resident_bytes(self._proc, worker.pid)) for names, worker in workers]
        yield gauge(MEMORY, [(names, value) for names, value in memory if value is not None])
        graphs = [
            ((self._stage, str(index), kind), float(number))
            for index, facts in enumerate(self._facts())
            for kind, number in facts.get("graphs", {}).items()
        ]
        if graphs:
            yield gauge(GRAPHS, graphs)


def show_pool(stage: str, pool: Pool, registry: CollectorRegistry) -> None:
    """Have a pool shown, and the GPUs that it computes on. Called before it is started."""
    pool.observer = PoolMetrics(stage, registry)
    registry.register(PoolCollector(stage, pool.statistics, lambda: pool.facts))
    if any(placement.device != "cpu" for placement in pool.placements):
        registry.register(GpuCollector())


def _resident_bytes(proc: Path, pid: int | None) -> float | None:
    """Of a process; None if there is none."""
    fields = text_of(proc / str(pid) / "statm").split() if pid is not None else ()
    return float(fields[1]) * _PAGE_BYTES if fields else None
