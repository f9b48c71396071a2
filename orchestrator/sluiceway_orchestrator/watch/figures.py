"""Figures of the time between two samples of a cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sluiceway_runtime.pool import PoolStatistics, WorkerStatistics
from sluiceway_runtime.watch import ServerSample
from sluiceway_runtime.watch.durations import quantile_s, since

from sluiceway.figures import (
    ClusterFigures,
    FrontFigures,
    GpuFigures,
    OrchestratorFigures,
    ReplicaFigures,
    StageFigures,
    WorkerFigures,
)
from sluiceway_orchestrator.watch.limits import limits_of
from sluiceway_orchestrator.watch.samples import ClusterSample, ReplicaSample, StageSample, Work

__all__ = ["figures_of"]

# Two samples of one process agree to this on when it began.
SAME_START_S = 0.5


def figures_of(before: ClusterSample, after: ClusterSample) -> ClusterFigures:
    """What happened between two samples, how things stand at the second, and what limits.

    Args:
        before: the earlier one.
        after: the later one.
    """
    window_s = max(after.at_s - before.at_s, 1e-9)
    earlier = {stage.name: stage for stage in before.stages}
    stages = tuple(_stage(earlier.get(stage.name), stage) for stage in after.stages)
    orchestrator = _orchestrator(before, after, window_s)
    return ClusterFigures(window_s, limits_of(orchestrator, stages, after.apis), orchestrator, stages, after.apis)


def _orchestrator(before: ClusterSample, after: ClusterSample, window_s: float) -> OrchestratorFigures:
    old, new = before.work, after.work
    took = since(old.durations, new.durations)
    return OrchestratorFigures(
        server_version=after.own.server_version,
        rate=(new.done - old.done) / window_s,
        failed_rate=(new.failed - old.failed) / window_s,
        p50_ms=_ms(quantile_s(took, 0.5)),
        p99_ms=_ms(quantile_s(took, 0.99)),
        jobs=new.jobs,
        jobs_limit=new.jobs_limit,
        working=new.working,
        working_limit=new.working_limit,
        waiting=new.waiting,
        waiting_own_share=new.waiting_own_share,
        wait_ms=new.wait_ms,
        unread=_unread(old, new),
        front=_front(before.own, after.own),
    )


def _unread(old: Work, new: Work) -> int:
    """Jobs whose events waited at both moments, and of which nothing was read in between."""
    return len(old.unread & new.unread)


def _stage(before: StageSample | None, after: StageSample) -> StageFigures:
    earlier = {replica.address: replica for replica in before.replicas} if before is not None else {}
    pairs = [(_same_process(earlier.get(replica.address), replica), replica) for replica in after.replicas]
    replicas = tuple(_replica(old, new) for old, new in pairs)
    took = _added(
        since(old.calls, new.sample.calls) for old, new in pairs if old is not None and new.sample is not None
    )
    works = [replica for replica in replicas if replica.workers]
    gpus = [gpu for replica in replicas if (gpu := replica.gpu) is not None]
    return StageFigures(
        name=after.name,
        kind=after.kind,
        replicas=replicas,
        ready=sum(replica.ready for replica in replicas),
        backlog=after.backlog,
        in_flight=sum(replica.in_flight for replica in replicas),
        wait_ms=max(after.wait_ms, *(replica.wait_ms for replica in replicas), 0.0),
        rate=_sum(replica.rate for replica in replicas),
        failed_rate=_sum(replica.failed_rate for replica in replicas),
        refused_rate=_sum(replica.refused_rate for replica in replicas),
        p50_ms=_ms(quantile_s(took, 0.5)),
        p99_ms=_ms(quantile_s(took, 0.99)),
        busy=_mean((replica.busy, len(replica.workers)) for replica in works),
        # Weighted by items: what an item found itself in.
        batch=_mean((replica.batch, replica.rate or 0.0) for replica in works),
        workers=sum(len(replica.workers) for replica in replicas),
        workers_ready=sum(replica.workers_ready for replica in replicas),
        restarts=_total(replica.restarts for replica in replicas),
        recent_restarts=_total(replica.recent_restarts for replica in replicas),
        gpu=sum(gpus) / len(gpus) if gpus else None,
    )


def _same_process(before: ReplicaSample | None, after: ReplicaSample) -> ServerSample | None:
    """The earlier sample of the process that the later one is of; a server that was started again counts from 0."""
    old, new = before.sample if before is not None else None, after.sample
    if old is None or new is None or new.at_s <= old.at_s:
        return None
    began_s = old.at_s - old.uptime_s, new.at_s - new.uptime_s
    return old if abs(began_s[0] - began_s[1]) < SAME_START_S else None


def _replica(old: ServerSample | None, replica: ReplicaSample) -> ReplicaFigures:
    new, report = replica.sample, replica.report
    if new is None:
        return ReplicaFigures(
            replica.address,
            replica.ready,
            group=replica.group,
            in_flight=replica.in_flight,
            # What it said with its last answer, which may be long ago.
            queued=report.queued if replica.in_flight else 0,
            running=report.running if replica.in_flight else 0,
            capacity=report.capacity if replica.ready else 0,
            wait_ms=report.queue_ms if replica.in_flight else 0.0,
        )
    plain = ReplicaFigures(
        replica.address,
        replica.ready,
        state=new.state,
        group=replica.group,
        server_version=new.server_version,
        in_flight=replica.in_flight,
        front=_front(old, new),
        gpus=tuple(
            GpuFigures(gpu.index, gpu.name, gpu.utilisation, gpu.memory_used_bytes, gpu.memory_total_bytes)
            for gpu in new.gpus
        ),
    )
    return plain if new.pool is None else _with_pool(plain, old, new, new.pool)


def _with_pool(
    plain: ReplicaFigures, old: ServerSample | None, new: ServerSample, pool: PoolStatistics
) -> ReplicaFigures:
    earlier = old.pool if old is not None else None
    seconds = new.at_s - old.at_s if old is not None else 0.0
    before = {worker.index: worker for worker in earlier.workers} if earlier is not None else {}
    workers = tuple(_worker(before.get(worker.index), worker, seconds) for worker in pool.workers)
    took = since(old.calls, new.calls) if old is not None else ()
    restarts = sum(worker.restarts for worker in pool.workers)
    counted = pool.counters
    figures: dict[str, Any] = {
        "queued": pool.queued,
        "running": pool.running,
        "capacity": pool.capacity,
        "wait_ms": pool.queue_ms,
        "p50_ms": _ms(quantile_s(took, 0.5)),
        "p99_ms": _ms(quantile_s(took, 0.99)),
        "busy": _mean((worker.busy, 1.0) for worker in workers),
        "restarts": restarts,
        "workers_ready": pool.ready_workers,
        "workers": workers,
    }
    if earlier is not None:
        then = earlier.counters
        batches = _difference(before, pool.workers, "batches")
        figures |= {
            "rate": (counted.succeeded - then.succeeded) / seconds,
            "failed_rate": (counted.failed + counted.expired - then.failed - then.expired) / seconds,
            "refused_rate": (counted.refused - then.refused) / seconds,
            "batch": _difference(before, pool.workers, "items") / batches if batches else None,
            "recent_restarts": restarts - sum(worker.restarts for worker in earlier.workers),
        }
    return replace(plain, **figures)


def _worker(old: WorkerStatistics | None, new: WorkerStatistics, seconds: float) -> WorkerFigures:
    plain = WorkerFigures(new.index, new.pid or 0, new.state.value, restarts=new.restarts)
    if old is None:
        return plain
    batches, items = new.batches - old.batches, new.items - old.items
    return WorkerFigures(
        new.index,
        new.pid or 0,
        new.state.value,
        busy=_share(new.busy_s - old.busy_s, seconds),
        rate=items / seconds,
        batch=items / batches if batches else None,
        restarts=new.restarts,
    )


def _front(old: ServerSample | None, new: ServerSample) -> FrontFigures:
    now = new.front
    gauges = {
        name: getattr(now, name)
        for name in ("cpus", "memory_bytes", "held_bytes", "held_limit_bytes", "waiting_for_room")
    }
    seconds = new.at_s - old.at_s if old is not None else 0.0
    if old is None or seconds <= 0:
        return FrontFigures(**gauges)
    then = old.front
    starved = None
    if now.loop_starved_s is not None and then.loop_starved_s is not None:
        starved = _share(now.loop_starved_s - then.loop_starved_s, seconds)
    throttled = 0.0 if now.quota_periods else None
    if now.quota_periods > then.quota_periods:
        throttled = _share(now.throttled_periods - then.throttled_periods, now.quota_periods - then.quota_periods)
    return FrontFigures(
        loop=_share(now.loop_cpu_s - then.loop_cpu_s, seconds),
        starved=starved,
        cpus_used=max(0.0, now.process_cpu_s - then.process_cpu_s) / seconds,
        throttled=throttled,
        **gauges,
    )


def _difference(before: dict[int, WorkerStatistics], workers: Sequence[WorkerStatistics], name: str) -> int:
    return sum(getattr(w, name) - getattr(before[w.index], name) for w in workers if w.index in before)


def _share(part: float, whole: float) -> float:
    """Clocks that are read one after the other may differ by a little more than the time between them."""
    return min(1.0, max(0.0, part / whole))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Iterable[tuple[float | None, float]]) -> float | None:
    """Weighted mean of what is known."""
    known = [(value, weight) for value, weight in values if value is not None]
    weights = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / weights if weights else None


def _added(counts: Iterable[Sequence[int]]) -> list[int]:
    total: list[int] = []
    for one in counts:
        total.extend([0] * (len(one) - len(total)))
        for bucket, count in enumerate(one):
            total[bucket] += count
    return total
