"""How often the kernel stopped this server because its CPU quota was used up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.registry import Collector

from sluiceway_runtime import control_groups
from sluiceway_runtime.metrics.instruments import Family, counter

__all__ = ["PERIODS", "THROTTLED_PERIODS", "THROTTLED_SECONDS", "CgroupCollector"]

PERIODS = Family(
    "sluiceway_cgroup_cpu_periods",
    "counter",
    "Periods of the CPU quota (cgroup) in which the server had something to do; there only under a quota.",
)
THROTTLED_PERIODS = Family(
    "sluiceway_cgroup_cpu_throttled_periods",
    "counter",
    "Of those periods, the ones in which the quota was used up, so that the server stood still.",
)
THROTTLED_SECONDS = Family(
    "sluiceway_cgroup_cpu_throttled_seconds", "counter", "How long its threads stood still for that, all together."
)
# What a file says, and what it means in seconds: version 2 counts microseconds, version 1 nanoseconds.
_TIMES = {"throttled_usec": 1e-6, "throttled_time": 1e-9}


class CgroupCollector(Collector):
    """Reads `cpu.stat` of the process's control groups, its own and those around it."""

    def __init__(self, proc: Path = control_groups.PROC, sys: Path = control_groups.SYS) -> None:
        found = control_groups.control_groups(proc, sys, ("cpu",))
        # Those do not change while a process runs; a group without a quota counts no periods.
        self._files = [group / "cpu.stat" for groups in found for group in groups if (group / "cpu.stat").is_file()]

    def collect(self) -> Iterable[Metric]:
        """Read them once; without a quota anywhere there is nothing to show."""
        periods = throttled = 0
        seconds = 0.0
        for path in self._files:
            facts = dict(line.split() for line in control_groups.text_of(path).splitlines())
            periods += int(facts.get("nr_periods", 0))
            throttled += int(facts.get("nr_throttled", 0))
            seconds += sum(int(facts.get(name, 0)) * unit for name, unit in _TIMES.items())
        if periods:
            yield counter(PERIODS, [((), periods)])
            yield counter(THROTTLED_PERIODS, [((), throttled)])
            yield counter(THROTTLED_SECONDS, [((), seconds)])
