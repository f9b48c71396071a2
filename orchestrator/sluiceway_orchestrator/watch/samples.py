"""The whole cluster at one moment, as far as this orchestrator can see it."""

from __future__ import annotations

from dataclasses import dataclass

from sluiceway_runtime.watch import ServerSample

from sluiceway.figures import ApiFigures
from sluiceway_orchestrator.stages.balancer import Report

__all__ = ["ClusterSample", "ReplicaSample", "StageSample", "Work"]


@dataclass(frozen=True, slots=True)
class ReplicaSample:
    """One replica.

    Attributes:
        ready: whether it is given work.
        group: the version that it serves.
        in_flight: items that this orchestrator has with it.
        report: how busy it said that it was when it last answered a call for work.
        sample: None where it did not answer, or knows no samples.
    """

    address: str
    ready: bool
    group: str
    in_flight: int
    report: Report
    sample: ServerSample | None


@dataclass(frozen=True, slots=True)
class StageSample:
    """One stage; `backlog` items wait here for a replica, one of them for `wait_ms`."""

    name: str
    kind: str
    backlog: int
    wait_ms: float
    replicas: tuple[ReplicaSample, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What this orchestrator has to do.

    Attributes:
        done, failed: sources so far.
        durations: of those that were done, as `Durations` counts them.
        jobs: in progress, of at most `jobs_limit`.
        working: sources that are worked on, of at most `working_limit`.
        waiting: sources that wait for that; of those `waiting_own_share`, as their client has its whole share.
        wait_ms: of the source that waits the longest for its turn.
        unread: lines of events that are full, and what was taken of each; see `Jobs.unread`.
    """

    done: int = 0
    failed: int = 0
    durations: tuple[int, ...] = ()
    jobs: int = 0
    jobs_limit: int = 0
    working: int = 0
    working_limit: int = 0
    waiting: int = 0
    waiting_own_share: int = 0
    wait_ms: float = 0.0
    unread: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class ClusterSample:
    """All of it; `at_s` is on this process's monotonic clock, `own` a sample of this server."""

    at_s: float
    own: ServerSample
    work: Work
    stages: tuple[StageSample, ...]
    apis: tuple[ApiFigures, ...] = ()
