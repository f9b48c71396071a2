"""The machine's cores: what there is, whose they are, and how workers are placed on them."""

from __future__ import annotations

from sluiceway_runtime.cores.facts import CpuFacts, LogicalCpu, isa, parse_cpu_list, read_cpu_facts
from sluiceway_runtime.cores.planner import plan
from sluiceway_runtime.cores.selfcheck import ThreadUse, measure_threads, verify_threads
from sluiceway_runtime.cores.threads import apply_thread_caps, os_threads, thread_environment

__all__ = [
    "CpuFacts",
    "LogicalCpu",
    "ThreadUse",
    "apply_thread_caps",
    "isa",
    "measure_threads",
    "os_threads",
    "parse_cpu_list",
    "plan",
    "read_cpu_facts",
    "thread_environment",
    "verify_threads",
]
