"""What is said to limit, and what is advised: a row for each rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from sluiceway_orchestrator.watch.limits import limits_of

from sluiceway.figures import (
    ApiFigures,
    FrontFigures,
    GpuFigures,
    Limit,
    OrchestratorFigures,
    ReplicaFigures,
    StageFigures,
    WorkerFigures,
)

FRONT = FrontFigures(loop=0.2, starved=0.01, cpus_used=0.3, cpus=4.0)
CALM = OrchestratorFigures(
    server_version="1", rate=12.3, p50_ms=80.0, p99_ms=200.0, jobs=3, jobs_limit=1024, working=3, working_limit=512,
    front=FRONT,
)  # fmt: skip


def stage(
    name: str = "recognition",
    *,
    kind: str = "recognition",
    busy: float | None = 0.4,
    workers: int = 2,
    ready: int = 2,
    front: FrontFigures | None = FRONT,
    gpu: float | None = None,
    address: str = "10.0.0.3:50053",
    replica: dict[str, object] | None = None,
    **figures: object,
) -> StageFigures:
    """A stage with one replica, whose first workers take work."""
    one = ReplicaFigures(
        address,
        ready=bool(ready),
        state="ready" if ready else "",
        busy=busy,
        workers_ready=ready,
        capacity=ready,
        front=front,
        workers=tuple(
            WorkerFigures(index, 100 + index, "ready" if index < ready else "backoff", busy if index < ready else 0.0)
            for index in range(workers)
        ),
        gpus=(GpuFigures(0, "H200", gpu),) if gpu is not None else (),
    )
    one = replace(one, **(replica or {}))
    given: dict[str, object] = {
        "replicas": (one,), "ready": int(bool(ready)), "busy": busy, "gpu": gpu,
        "workers": workers, "workers_ready": ready,
    }  # fmt: skip
    return StageFigures(name, kind, **(given | figures))


DETECTION = stage("detection", kind="detection", address="10.0.0.2:50052")
ALONE = {"workers": (), "front": None, "state": "", "busy": None}


@dataclass
class Case:
    """What is there, and what is said first."""

    kind: str
    subject: str
    what: str
    help: str
    stages: tuple[StageFigures, ...] = (DETECTION, stage())
    orchestrator: OrchestratorFigures = CALM
    apis: tuple[ApiFigures, ...] = ()
    fault: bool = False


CASES = {
    "all is well": Case(
        "nothing", "", "nothing limits: 12 images/s; the busiest stage, recognition, is busy 62%", "",
        stages=(DETECTION, stage(busy=0.62)),
    ),
    "nobody wants anything": Case(
        "idle", "", "nothing to do: no image came within the last seconds", "",
        orchestrator=replace(CALM, rate=0.0, jobs=0, working=0),
    ),
    "work came, and none of it is done yet": Case(
        "nothing", "", "nothing limits: 0 images/s; the busiest stage, detection, is busy 40%", "",
        orchestrator=replace(CALM, rate=0.0),
    ),
    "all workers are busy": Case(
        "workers", "recognition", "2 of 2 workers busy 98%, oldest wait 340 ms",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.98, wait_ms=340.0)),
    ),
    "they are nearly always busy, and work waits": Case(
        "workers", "recognition", "2 of 2 workers busy 88%, oldest wait 45 ms, 3 more wait outside",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.88, wait_ms=45.0, backlog=3)),
    ),
    "they are nearly always busy, and nothing waits": Case(
        "nothing", "", "nothing limits: 12 images/s; the busiest stage, recognition, is busy 88%", "",
        stages=(DETECTION, stage(busy=0.88, wait_ms=4.0)),
    ),
    "they are always busy, and nothing waits yet": Case(
        "workers", "recognition", "2 of 2 workers busy 97%",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.97)),
    ),
    "two stages have enough to do": Case(
        "workers", "detection", "2 of 2 workers busy 99%, oldest wait 1.2 s",
        "add workers or replicas (detection.workers, --scale detection=2)",
        stages=(stage("detection", kind="detection", busy=0.99, wait_ms=1200.0), stage(busy=0.98, wait_ms=90.0)),
    ),
    "a stage of the user's own": Case(
        "workers", "plates", "2 of 2 workers busy 98%, oldest wait 340 ms",
        "add workers or replicas (stages.plates.workers, --scale plates=2)",
        stages=(DETECTION, stage("plates", busy=0.98, wait_ms=340.0)),
    ),
    "the rest of the workers have all of it, as one is started again": Case(
        "workers", "recognition", "1 of 2 workers busy 98%, oldest wait 340 ms",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.98, ready=1, wait_ms=340.0)),
    ),
    "a GPU has enough to do": Case(
        "workers", "recognition", "2 of 2 workers busy 98%, GPU 93%, oldest wait 340 ms",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.98, wait_ms=340.0, gpu=0.93)),
    ),
    "the GPU stands still while its workers decode": Case(
        "workers", "recognition", "2 of 2 workers busy 98%, GPU 22%, oldest wait 340 ms",
        "the GPU waits for its workers: raise recognition.workers, or add replicas (--scale recognition=2)",
        stages=(DETECTION, stage(busy=0.98, wait_ms=340.0, gpu=0.22)),
    ),
    "a server of an older release is full": Case(
        "workers", "recognition", "all of its 4 places are taken, 9 more wait outside",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=None, workers=0, backlog=9, replica={**ALONE, "capacity": 4, "in_flight": 9})),
    ),
    "a server of an older release is not full": Case(
        "nothing", "", "nothing limits: 12 images/s; the busiest stage, detection, is busy 40%", "",
        stages=(DETECTION, stage(busy=None, workers=0, replica={**ALONE, "capacity": 4, "in_flight": 1})),
    ),
    "the quota stops a stage": Case(
        "throttled", "recognition", "1 of 1 replica is stopped by the CPU quota in 45% of its periods (2 CPUs), "
        "oldest wait 340 ms",
        "raise the CPU limit of its container, or lower recognition.workers so that they fit in it",
        stages=(DETECTION, stage(busy=0.98, wait_ms=340.0, front=replace(FRONT, throttled=0.45, cpus=2.0))),
    ),
    "the quota stops the orchestrator": Case(
        "throttled", "orchestrator", "stopped by the CPU quota in 30% of its periods (1 CPU)",
        "raise the CPU limit of its container",
        orchestrator=replace(CALM, front=replace(FRONT, throttled=0.3, cpus=1.0)),
    ),
    "the loop of a stage is full": Case(
        "front", "recognition", "the event loop of 10.0.0.3:50053 is full (97%), oldest wait 30 ms",
        "add replicas (--scale recognition=2): each has a loop of its own",
        stages=(DETECTION, stage(busy=0.6, wait_ms=30.0, front=replace(FRONT, loop=0.97))),
    ),
    "a stage has no CPU left for its loop": Case(
        "starved", "recognition", "10.0.0.3:50053 waits for a CPU 40% of the time",
        "its machine has more to do than CPUs: fewer workers (recognition.workers), or more CPUs",
        stages=(DETECTION, stage(busy=0.6, front=replace(FRONT, starved=0.4))),
    ),
    "a loop that has little to do waits now and then": Case(
        "nothing", "", "nothing limits: 12 images/s; the busiest stage, detection, is busy 40%", "",
        orchestrator=replace(CALM, front=replace(FRONT, starved=0.28)),
    ),
    "the loop of the orchestrator is full": Case(
        "event_loop", "orchestrator", "its event loop is full (98%)",
        "add orchestrators (--scale orchestrator=2): each has a loop of its own",
        orchestrator=replace(CALM, front=replace(FRONT, loop=0.98)),
    ),
    "the orchestrator has no CPU left": Case(
        "starved", "orchestrator", "it waits for a CPU 50% of the time",
        "its machine has more to do than CPUs: fewer workers of the stages beside it, or more CPUs",
        orchestrator=replace(CALM, front=replace(FRONT, starved=0.5)),
    ),
    "an API may not be called more": Case(
        "api_in_flight", "api registry", "8 of 8 calls in flight, 12 wait for their turn",
        "raise api.registry.max_in_flight if it can take more, or make it answer sooner",
        apis=(ApiFigures("registry", 8, 8, 12),),
    ),
    "all calls of an API are in use, and none waits": Case(
        "nothing", "", "nothing limits: 12 images/s; the busiest stage, detection, is busy 40%", "",
        apis=(ApiFigures("registry", 8, 8, 0),),
    ),
    "a client does not read": Case(
        "unread", "clients", "1 job is held up by a client that does not read",
        "a client has to read its events as they come; its place and its bytes are kept until its deadline",
        orchestrator=replace(CALM, unread=1),
    ),
    "clients do not read, and images wait behind them": Case(
        "unread", "clients", "3 jobs are held up by clients that do not read",
        "a client has to read its events as they come; its place and its bytes are kept until its deadline",
        orchestrator=replace(CALM, unread=3, working=512, waiting=40),
    ),
    "there are no more places for images": Case(
        "places", "orchestrator", "all of its 512 places for images are taken, 40 wait",
        "raise orchestrator.max_sources_in_flight, or add orchestrators (--scale orchestrator=2)",
        orchestrator=replace(CALM, working=512, waiting=40),
    ),
    "a client has its share": Case(
        "client_places", "orchestrator",
        "7 images wait, as their clients have as many at work as one client may",
        "raise orchestrator.max_sources_per_client, if nobody else needs the places",
        orchestrator=replace(CALM, working=128, waiting=7, waiting_own_share=7),
    ),
    "there are no more places for jobs": Case(
        "jobs", "orchestrator", "all of its 1024 places for jobs are taken; more are refused",
        "raise orchestrator.max_jobs, or add orchestrators (--scale orchestrator=2)",
        orchestrator=replace(CALM, jobs=1024),
    ),
    "the places are full as a stage has enough to do": Case(
        "workers", "recognition", "2 of 2 workers busy 98%, oldest wait 340 ms",
        "add workers or replicas (recognition.workers, --scale recognition=2)",
        stages=(DETECTION, stage(busy=0.98, wait_ms=340.0)),
        orchestrator=replace(CALM, working=512, waiting=40),
    ),
    "the orchestrator may hold no more bytes": Case(
        "memory", "orchestrator", "no room for more bytes: 500 of 512 MB are held, 4 wait",
        "raise orchestrator.memory_bytes, and the memory it has",
        orchestrator=replace(
            CALM, front=replace(FRONT, held_bytes=500 << 20, held_limit_bytes=512 << 20, waiting_for_room=4)
        ),
    ),
    "a stage may hold no more bytes": Case(
        "memory", "recognition", "in 10.0.0.3:50053 no room for more bytes: 500 of 512 MB are held, 4 wait",
        "raise recognition.memory_bytes, and the memory it has",
        stages=(
            DETECTION,
            stage(front=replace(FRONT, held_bytes=500 << 20, held_limit_bytes=512 << 20, waiting_for_room=4)),
        ),
    ),
    "a stage is gone": Case(
        "no_replica", "recognition", "no replica is ready, 5 items wait for it",
        "look at 10.0.0.3:50053: does a server run there, and what does its log say last?",
        stages=(DETECTION, stage(ready=0, backlog=5, replica=ALONE)),
        fault=True,
    ),
    "a stage is gone, and nothing waits for it": Case(
        "no_replica", "recognition", "no replica is ready",
        "look at 10.0.0.3:50053: does a server run there, and what does its log say last?",
        stages=(DETECTION, stage(ready=0, replica=ALONE)),
        orchestrator=replace(CALM, rate=0.0, jobs=0, working=0),
        fault=True,
    ),
    "a stage starts": Case(
        "no_replica", "recognition", "no replica is ready, 1 of 1 is starting, 1 item waits for it",
        "its log says what it is at",
        stages=(DETECTION, stage(ready=0, backlog=1, replica={"state": "starting"})),
        fault=True,
    ),
    "a stage is nowhere": Case(
        "no_replica", "recognition", "no replica is known",
        "does the name in recognition.target resolve, and does a server run there?",
        stages=(DETECTION, StageFigures("recognition", "recognition")),
        fault=True,
    ),
    "a stage is gone while the other has enough to do": Case(
        "no_replica", "recognition", "no replica is ready, 5 items wait for it",
        "look at 10.0.0.3:50053: does a server run there, and what does its log say last?",
        stages=(
            stage("detection", kind="detection", busy=0.98, wait_ms=340.0),
            stage(ready=0, backlog=5, replica=ALONE),
        ),
        fault=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_limits(case: Case) -> None:
    limits = limits_of(case.orchestrator, case.stages, case.apis)
    assert limits[0] == Limit(case.subject, case.kind, case.what, case.help, case.fault)


TWO = stage()
AWAY = replace(TWO, replicas=(*TWO.replicas, ReplicaFigures("10.0.0.9:50053", ready=False)))
BESIDE = {
    "a replica that does not answer": (
        Limit(
            "recognition", "replica_away", "1 of 2 replicas does not answer (10.0.0.9:50053)",
            "does a server run there, and what does its log say last?", fault=True,
        ),
        CALM, (DETECTION, AWAY), (),
    ),
    "a worker that is started again": (
        Limit(
            "recognition", "workers_failing", "1 of 2 workers does not work, 2 workers started again within seconds",
            "its log says why each ended", fault=True,
        ),
        CALM, (DETECTION, stage(ready=1, recent_restarts=2)), (),
    ),
    "an API that is left alone": (
        Limit(
            "api registry", "api_broken", "it failed again and again, and is left alone for a while",
            "sources that need it fail meanwhile: is it up, and does it take our calls?", fault=True,
        ),
        CALM, (DETECTION, stage()), (ApiFigures("registry", 0, 8, 0, broken=True),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE.values(), ids=BESIDE.keys())
def test_what_is_told_beside_it(
    case: tuple[Limit, OrchestratorFigures, tuple[StageFigures, ...], tuple[ApiFigures, ...]],
) -> None:
    """Faults that hold nothing up come after what limits, be it nothing."""
    wanted, *figures = case
    limits = limits_of(*figures)
    assert limits[0].kind == "nothing"
    assert limits[1:] == (wanted,)


def test_a_replica_that_starts_or_leaves_is_no_fault() -> None:
    for state in ("starting", "draining"):
        others = (*TWO.replicas, ReplicaFigures("10.0.0.9:50053", ready=False, state=state))
        [limit] = limits_of(CALM, (DETECTION, replace(TWO, replicas=others)), ())
        assert limit.kind == "nothing"


def test_of_many_addresses_two_are_named() -> None:
    replicas = tuple(ReplicaFigures(f"10.0.0.{number}:50053", ready=False) for number in range(5))
    for count, named in ((2, "10.0.0.0:50053 and 10.0.0.1:50053:"), (5, "10.0.0.0:50053, 10.0.0.1:50053 and 3 more:")):
        stage_away = StageFigures("recognition", "recognition", replicas[:count])
        assert named in limits_of(CALM, (DETECTION, stage_away), ())[0].help


def test_everything_that_limits_is_told_the_worst_first() -> None:
    limits = limits_of(
        replace(CALM, unread=1, front=replace(FRONT, loop=0.99)),
        (
            stage("detection", kind="detection", busy=0.99, wait_ms=20.0),
            stage(busy=0.99, wait_ms=900.0),
            stage("plates", ready=0, replica=ALONE),
        ),
        (ApiFigures("registry", 8, 8, 1),),
    )
    assert [(limit.subject, limit.kind) for limit in limits] == [
        ("plates", "no_replica"),
        ("recognition", "workers"),
        ("detection", "workers"),
        ("orchestrator", "event_loop"),
        ("api registry", "api_in_flight"),
        ("clients", "unread"),
    ]
