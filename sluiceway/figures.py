"""Figures of a cluster while somebody watches it: what limits it now, and the rates and shares that say so.

An orchestrator works them out, and clients read them. What is None is not known: of a server of an older release, of
one that has not answered twice yet, or because there was nothing to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ApiFigures",
    "ClusterFigures",
    "FrontFigures",
    "GpuFigures",
    "Limit",
    "OrchestratorFigures",
    "ReplicaFigures",
    "StageFigures",
    "WorkerFigures",
]


@dataclass(frozen=True, slots=True)
class Limit:
    """What keeps the cluster from doing more, or a part of it from working.

    Attributes:
        subject: which part: a stage, "orchestrator", "api NAME", "clients", or "" for all of it.
        kind: for programs, as the contract lists them.
        what: is, in words.
        help: what would help, in words; empty where nothing is needed.
        fault: whether somebody should look at it even if no work waits.
    """

    subject: str
    kind: str
    what: str
    help: str = ""
    fault: bool = False


@dataclass(frozen=True, slots=True)
class FrontFigures:
    """The process that takes the calls of a server.

    Attributes:
        loop: share of the time in which its event loop computed, 0..1.
        starved: share of the time in which the loop could have run and had no CPU.
        cpus_used: CPUs in use by the process.
        cpus: that the server may use, its workers included.
        throttled: share of the quota's periods in which it was stopped; None without a quota.
        memory_bytes: that the process occupies.
        held_bytes: of requests, images and answers, or reserved for them.
        held_limit_bytes: the most that these may be.
        waiting_for_room: calls and sources that wait for room.
    """

    loop: float | None = None
    starved: float | None = None
    cpus_used: float | None = None
    cpus: float = 0.0
    throttled: float | None = None
    memory_bytes: int = 0
    held_bytes: int = 0
    held_limit_bytes: int = 0
    waiting_for_room: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker process: `busy` is a share, `rate` in items a second, `batch` in items; `pid` 0 is none."""

    index: int
    pid: int
    state: str
    busy: float | None = None
    rate: float | None = None
    batch: float | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """A GPU that workers use; `utilisation` is a share of the last second or so."""

    index: int
    name: str
    utilisation: float | None = None
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One replica of a stage; rates are items a second.

    Attributes:
        state: of its life; empty where it did not answer.
        in_flight: items that the orchestrator has with it.
        queued: items that wait in it for a worker.
        running: items with its workers.
        capacity: items that those can hold at once.
        wait_ms: of the item that waits the longest in it.
        p50_ms: of its calls, from arrival to end; likewise `p99_ms`.
        busy: share of the time in which its workers had a batch in work, over all of them.
        batch: items in a batch.
        restarts: of workers since the server began; `recent_restarts` within the window.
        front: None where it did not answer.
    """

    address: str
    ready: bool
    state: str = ""
    group: str = ""
    server_version: str = ""
    in_flight: int = 0
    queued: int = 0
    running: int = 0
    capacity: int = 0
    wait_ms: float = 0.0
    rate: float | None = None
    failed_rate: float | None = None
    refused_rate: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    busy: float | None = None
    batch: float | None = None
    restarts: int | None = None
    recent_restarts: int | None = None
    workers_ready: int = 0
    front: FrontFigures | None = None
    workers: tuple[WorkerFigures, ...] = ()
    gpus: tuple[GpuFigures, ...] = ()

    @property
    def gpu(self) -> float | None:
        """Mean utilisation of its GPUs."""
        known = [gpu.utilisation for gpu in self.gpus if gpu.utilisation is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage: its replicas, and all of them together, as `ReplicaFigures` has it.

    Attributes:
        ready: replicas that take work.
        backlog: items that wait in the orchestrator for a replica.
        in_flight: items that the orchestrator has with replicas.
        wait_ms: of the item that waits the longest, in the orchestrator or in a replica.
        gpu: mean utilisation of the GPUs in use.
    """

    name: str
    kind: str
    replicas: tuple[ReplicaFigures, ...] = ()
    ready: int = 0
    backlog: int = 0
    in_flight: int = 0
    wait_ms: float = 0.0
    rate: float | None = None
    failed_rate: float | None = None
    refused_rate: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    busy: float | None = None
    batch: float | None = None
    workers: int = 0
    workers_ready: int = 0
    restarts: int | None = None
    recent_restarts: int | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class ApiFigures:
    """An API: calls under way, of at most `limit`, and those that wait; `broken` while it is left alone."""

    name: str
    in_flight: int
    limit: int
    waiting: int
    broken: bool = False


@dataclass(frozen=True, slots=True)
class OrchestratorFigures:
    """The orchestrator that answers; rates are images a second.

    Attributes:
        p50_ms: of images, from acceptance to their last event; likewise `p99_ms`.
        jobs: in progress, of at most `jobs_limit`.
        working: images that are worked on, of at most `working_limit`.
        waiting: images that wait for their turn; of those `waiting_own_share`, as their client has its whole share.
        wait_ms: of the image that waits the longest for its turn.
        unread: jobs whose events wait as their clients do not read.
    """

    server_version: str = ""
    rate: float = 0.0
    failed_rate: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    jobs: int = 0
    jobs_limit: int = 0
    working: int = 0
    working_limit: int = 0
    waiting: int = 0
    waiting_own_share: int = 0
    wait_ms: float = 0.0
    unread: int = 0
    front: FrontFigures = FrontFigures()


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """A cluster over the last `window_s` seconds; `limits` has what limits it, the worst first, and is never empty."""

    window_s: float
    limits: tuple[Limit, ...]
    orchestrator: OrchestratorFigures = OrchestratorFigures()
    stages: tuple[StageFigures, ...] = ()
    apis: tuple[ApiFigures, ...] = ()
