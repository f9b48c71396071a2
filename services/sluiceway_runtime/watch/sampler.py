"""Reads the server that it runs in, when it is asked to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.control_groups import PROC, SYS, control_groups, text_of
from sluiceway_runtime.cores.facts import read_cpu_facts
from sluiceway_runtime.pool import PoolStatistics
from sluiceway_runtime.release import release
from sluiceway_runtime.watch.durations import Durations
from sluiceway_runtime.watch.sample import FrontSample, GpuSample, ServerSample

__all__ = ["Sampler", "throttled"]


class Sampler:
    """Takes samples of the server of this process. Costs nothing between two of them.

    Args:
        state: of the server's life.
        budget: what its requests and images are counted in.
        pool: its queue and workers; None as long as there are none.
        calls: how long the calls took that it answered.
        gpus: those that its workers use.
    """

    def __init__(
        self,
        *,
        state: Callable[[], str],
        budget: MemoryBudget,
        pool: Callable[[], PoolStatistics | None] = lambda: None,
        calls: Durations | None = None,
        gpus: Callable[[], Sequence[GpuSample]] = tuple,
    ) -> None:
        self._state = state
        self._budget = budget
        self._pool = pool
        self._calls = calls or Durations()
        self._gpus = gpus
        self._version = release()
        self._began_s = monotonic()
        # Where the figures are, found at the first sample: a server that nobody watches does not look for them.
        self._groups: tuple[Path, ...] | None = None
        self._cpus = 0.0

    def sample(self) -> ServerSample:
        """Read everything. To be called in the thread of the event loop, whose CPU time it reads."""
        now_s = monotonic()
        return ServerSample(
            server_version=self._version,
            state=self._state(),
            at_s=now_s,
            uptime_s=now_s - self._began_s,
            front=self._front(),
            pool=self._pool(),
            calls=self._calls.counts(),
            gpus=tuple(self._gpus()),
        )

    def _front(self) -> FrontSample:
        if self._groups is None:
            self._groups = tuple(group for groups in control_groups(PROC, SYS, ("cpu",)) for group in groups)
            facts = read_cpu_facts()
            self._cpus = min(float(len(facts.allowed)), facts.quota_cpus or float("inf"))
        periods, throttled_periods = throttled(self._groups)
        return FrontSample(
            process_cpu_s=time.process_time(),
            loop_cpu_s=time.thread_time(),
            loop_starved_s=_starved_s(PROC),
            memory_bytes=_memory_bytes(PROC),
            held_bytes=self._budget.used_bytes,
            held_limit_bytes=self._budget.total_bytes,
            waiting_for_room=self._budget.waiting,
            cpus=self._cpus,
            quota_periods=periods,
            throttled_periods=throttled_periods,
        )


def throttled(groups: Sequence[Path]) -> tuple[int, int]:
    """Periods of the quota, and those in which it was used up, of the control group that was stopped most often."""
    found = (0, 0)
    for group in groups:
        counts = dict(line.split(" ", 1) for line in text_of(group / "cpu.stat").splitlines() if " " in line)
        periods, stopped = (int(counts.get(name, 0)) for name in ("nr_periods", "nr_throttled"))
        if periods and (not found[0] or stopped > found[1]):
            found = (periods, stopped)
    return found


def _starved_s(proc: Path) -> float | None:
    """How long this thread has stood in the kernel's line for a CPU."""
    words = text_of(proc / "thread-self/schedstat").split()
    return int(words[1]) / 1e9 if len(words) == 3 else None


def _memory_bytes(proc: Path) -> int:
    words = text_of(proc / "self/statm").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else 0
