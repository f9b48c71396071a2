"""One server at one moment: how it is, and totals since its start. Two samples of one server make rates."""

from __future__ import annotations

from dataclasses import dataclass

from sluiceway_runtime.pool import PoolStatistics

__all__ = ["FrontSample", "GpuSample", "ServerSample"]


@dataclass(frozen=True, slots=True)
class FrontSample:
    """The process that takes the calls of a server, without its workers.

    Attributes:
        process_cpu_s: CPU time of the process.
        loop_cpu_s: CPU time of the thread that its event loop runs in.
        loop_starved_s: for how long that thread could have run and had no CPU; None where the system does not say.
        memory_bytes: that the process occupies.
        held_bytes: of requests, images and answers, or reserved for them.
        held_limit_bytes: the most that these may be.
        waiting_for_room: calls and sources that wait for room.
        cpus: that the server may use, its workers included.
        quota_periods: of the control group so far; 0 where there is no quota.
        throttled_periods: of those, in which the server was stopped until the next one.
    """

    process_cpu_s: float = 0.0
    loop_cpu_s: float = 0.0
    loop_starved_s: float | None = None
    memory_bytes: int = 0
    held_bytes: int = 0
    held_limit_bytes: int = 0
    waiting_for_room: int = 0
    cpus: float = 0.0
    quota_periods: int = 0
    throttled_periods: int = 0


@dataclass(frozen=True, slots=True)
class GpuSample:
    """A GPU that workers compute on; `utilisation` (0..1, of the last second or so) is None where nobody says."""

    index: int
    name: str
    utilisation: float | None
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class ServerSample:
    """One server.

    Attributes:
        server_version: of the software.
        state: of its life ("starting", "ready", "draining", ...).
        at_s: when, on a clock of its own: only differences mean anything.
        uptime_s: since it began; totals begin with it.
        front: the process that takes the calls.
        pool: None for an orchestrator, and for a stage that has no workers yet.
        calls: for work that were answered, by how long they took; see `Durations`.
        gpus: that its workers use.
    """

    server_version: str
    state: str
    at_s: float
    uptime_s: float
    front: FrontSample
    pool: PoolStatistics | None = None
    calls: tuple[int, ...] = ()
    gpus: tuple[GpuSample, ...] = ()
