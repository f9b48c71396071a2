"""Two samples of a cluster become rates, shares and quantiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sluiceway_orchestrator.stages.balancer import Report
from sluiceway_orchestrator.watch.figures import figures_of
from sluiceway_orchestrator.watch.samples import ClusterSample, ReplicaSample, StageSample, Work
from sluiceway_runtime.pool import Counters, PoolStatistics, WorkerState, WorkerStatistics
from sluiceway_runtime.watch import Durations, FrontSample, GpuSample, ServerSample

from sluiceway.figures import ApiFigures, ClusterFigures, ReplicaFigures


def counts(*seconds: float) -> tuple[int, ...]:
    durations = Durations()
    for value in seconds:
        durations.observe(value)
    return durations.counts()


def worker(index: int, *, busy_s: float = 0.0, batches: int = 0, items: int = 0, restarts: int = 0) -> WorkerStatistics:
    return WorkerStatistics(index, 100 + index, WorkerState.READY, batches, items, restarts, busy_s=busy_s)


def pool(*workers: WorkerStatistics, **counters: int) -> PoolStatistics:
    return PoolStatistics(3, 300, 2, 2, 41.0, workers, Counters(**counters))


def server(at_s: float, *, began_s: float = 0.0, **facts: object) -> ServerSample:
    front = facts.pop("front", FrontSample(cpus=4.0))
    return ServerSample("1.2", "ready", at_s, at_s - began_s, front, **facts)  # type: ignore[arg-type]


def cluster(
    at_s: float, *stages: StageSample, work: Work | None = None, own: ServerSample | None = None
) -> ClusterSample:
    return ClusterSample(at_s, own or server(at_s), work or Work(), stages, (ApiFigures("registry", 1, 8, 0),))


def recognition(sample: ServerSample | None, *, address: str = "a:1", backlog: int = 0, **report: float) -> StageSample:
    reported = Report(**report)  # type: ignore[arg-type]
    return StageSample(
        "recognition", "recognition", backlog, 0.0, (ReplicaSample(address, True, "v1", 5, reported, sample),)
    )


def only(figures: ClusterFigures) -> ReplicaFigures:
    [stage] = figures.stages
    [replica] = stage.replicas
    return replica


def test_what_the_orchestrator_did_between_them() -> None:
    before = Work(done=100, failed=2, durations=counts(9.0), unread=frozenset({(1, 5), (2, 7), (3, 1)}))
    after = Work(
        done=150,
        failed=4,
        durations=counts(9.0, *[0.1] * 99, 2.0),
        jobs=3,
        jobs_limit=10,
        working=4,
        working_limit=20,
        waiting=6,
        waiting_own_share=1,
        # The first stands where it stood, the second was read from, the third is gone, the fourth is new.
        unread=frozenset({(1, 5), (2, 8), (4, 0)}),
    )
    own = replace(
        FrontSample(), loop_cpu_s=3.0, process_cpu_s=4.0, loop_starved_s=1.0, held_bytes=7, held_limit_bytes=9
    )
    later = replace(own, loop_cpu_s=5.5, process_cpu_s=10.0, loop_starved_s=1.5, waiting_for_room=2, memory_bytes=11)
    figures = figures_of(
        cluster(10.0, work=before, own=server(10.0, front=own)),
        cluster(15.0, work=after, own=server(15.0, front=later)),
    )
    assert figures.window_s == 5.0
    assert figures.apis == (ApiFigures("registry", 1, 8, 0),)
    found = figures.orchestrator
    assert (found.rate, found.failed_rate, found.unread) == (10.0, 0.4, 1)
    assert found.p50_ms == pytest.approx(100, rel=0.1)
    assert found.p99_ms == pytest.approx(100, rel=0.1)
    assert (found.jobs, found.jobs_limit, found.working, found.working_limit) == (3, 10, 4, 20)
    assert (found.waiting, found.waiting_own_share) == (6, 1)
    front = found.front
    assert (front.loop, front.starved, front.cpus_used, front.throttled) == (0.5, 0.1, 1.2, None)
    assert (front.held_bytes, front.held_limit_bytes, front.waiting_for_room, front.memory_bytes) == (7, 9, 2, 11)


def test_what_a_replica_did_between_them() -> None:
    old = server(
        100.0,
        pool=pool(
            worker(0, busy_s=10.0, batches=5, items=20), worker(1, restarts=1), succeeded=20, failed=1, expired=1
        ),
        calls=counts(0.5),
        front=FrontSample(quota_periods=100, throttled_periods=10),
    )
    new = server(
        104.0,
        pool=pool(
            worker(0, busy_s=14.0, batches=7, items=32),
            worker(1, busy_s=2.0, batches=2, items=4, restarts=3),
            succeeded=32,
            failed=2,
            expired=4,
            refused=8,
        ),
        calls=counts(0.5, 0.02, 0.02),
        front=FrontSample(quota_periods=140, throttled_periods=20),
        gpus=(GpuSample(0, "H200", 0.25, 1, 2), GpuSample(1, "H200", None, 1, 2)),
    )
    # The clock of a server has nothing to do with the orchestrator's.
    figures = figures_of(cluster(7.0, recognition(old)), cluster(11.0, recognition(new, backlog=9)))
    replica = only(figures)
    assert (replica.rate, replica.failed_rate, replica.refused_rate) == (3.0, 1.0, 2.0)
    assert (replica.busy, replica.batch) == (0.75, 4.0)
    assert (replica.restarts, replica.recent_restarts, replica.workers_ready) == (3, 2, 2)
    assert (replica.queued, replica.running, replica.capacity, replica.wait_ms) == (3, 2, 2, 41.0)
    assert (replica.state, replica.server_version, replica.group, replica.in_flight) == ("ready", "1.2", "v1", 5)
    assert replica.p50_ms == pytest.approx(20, rel=0.1)
    assert [worker.busy for worker in replica.workers] == [1.0, 0.5]
    assert [worker.batch for worker in replica.workers] == [6.0, 2.0]
    assert replica.front is not None
    assert replica.front.throttled == 0.25
    assert replica.gpu == 0.25
    [stage] = figures.stages
    assert (stage.rate, stage.busy, stage.batch, stage.gpu, stage.backlog, stage.in_flight) == (
        3.0,
        0.75,
        4.0,
        0.25,
        9,
        5,
    )
    assert (stage.ready, stage.workers, stage.workers_ready, stage.restarts, stage.recent_restarts) == (1, 2, 2, 3, 2)
    assert stage.p99_ms == pytest.approx(20, rel=0.1)


def test_a_server_that_was_started_again_has_no_rates_at_first() -> None:
    """Its totals begin anew: nothing of them can be compared with those of the process before it."""
    old = server(100.0, pool=pool(worker(0, busy_s=60.0, items=90), succeeded=90), calls=counts(*[0.5] * 9))
    new = server(101.0, began_s=99.0, pool=pool(worker(0, busy_s=0.5, items=1), succeeded=1), calls=counts(0.1))
    replica = only(figures_of(cluster(1.0, recognition(old)), cluster(2.0, recognition(new))))
    assert (replica.rate, replica.busy, replica.p50_ms, replica.recent_restarts) == (None, None, None, None)
    assert (replica.queued, replica.restarts) == (3, 0)


def test_a_server_that_knows_no_samples_is_shown_by_its_reports() -> None:
    stage = recognition(None, queued=7, running=2, capacity=2, queue_ms=30.0)
    replica = only(figures_of(cluster(1.0, stage), cluster(2.0, stage)))
    assert (replica.ready, replica.state, replica.front) == (True, "", None)
    assert (replica.queued, replica.running, replica.capacity, replica.wait_ms) == (7, 2, 2, 30.0)
    assert (replica.rate, replica.busy, replica.restarts) == (None, None, None)


def test_figures_of_several_replicas_are_put_together() -> None:
    def stage(at_s: float, first: int, second: int) -> StageSample:
        samples = [
            server(at_s, pool=pool(worker(0, busy_s=busy, items=items, batches=items), succeeded=items), calls=calls)
            for items, busy, calls in (
                (first, at_s, counts(*[0.01] * first)),
                (second, at_s / 2, counts(*[1.0] * second)),
            )
        ]
        replicas = [ReplicaSample(f"r:{n}", True, "v1", 1, Report(), sample) for n, sample in enumerate(samples)]
        return StageSample(
            "recognition", "recognition", 0, 0.0, (*replicas, ReplicaSample("r:9", False, "", 0, Report(), None))
        )

    [stage_figures] = figures_of(cluster(10.0, stage(10.0, 0, 0)), cluster(20.0, stage(20.0, 90, 10))).stages
    assert stage_figures.rate == 10.0
    assert stage_figures.busy == 0.75
    assert stage_figures.ready == 2
    assert len(stage_figures.replicas) == 3
    assert stage_figures.p50_ms == pytest.approx(10, rel=0.1)
    assert stage_figures.p99_ms == pytest.approx(1000, rel=0.1)


def test_a_stage_that_was_not_there_before_is_shown() -> None:
    sample = server(5.0, pool=pool(worker(0)))
    assert only(figures_of(cluster(1.0), cluster(2.0, recognition(sample)))).rate is None
