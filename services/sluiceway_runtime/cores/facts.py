"""Readers: what CPUs this process may use, how they are built, and how much of them a control group grants."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluiceway_runtime.control_groups import PROC, SYS, control_groups, text_of

__all__ = ["CpuFacts", "LogicalCpu", "isa", "parse_cpu_list", "read_cpu_facts"]

# Instruction sets that decide on a precision or a backend, by the kernel's names (x86, then ARM).
ISA_OF_INTEREST = frozenset(
    {
        *("avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
        *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
    }
)
# How far a quota may be from a whole number of CPUs and still be meant as that.
QUOTA_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class LogicalCpu:
    """One hardware thread. Threads with the same package and core are siblings."""

    cpu: int
    package: int
    core: int
    node: int


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What is known of the CPUs.

    Attributes:
        online: logical CPUs of the machine, as far as it is visible.
        allowed: those that this process may run on (affinity, which control group cpusets narrow).
        quota_cpus: CPU time per time that the control groups grant, None for no limit.
        exclusive: whether `allowed` looks like ours alone: the cpuset of our own control group is a partition or marked
            exclusive, or it is a part of the machine and the group's quota exactly its size (as Kubernetes' static CPU
            manager makes it).
        topology: the allowed ones as hardware.
    """

    online: tuple[int, ...]
    allowed: tuple[int, ...]
    quota_cpus: float | None
    exclusive: bool
    topology: tuple[LogicalCpu, ...]

    @property
    def physical_cores(self) -> int:
        """Cores among the allowed CPUs; siblings count once."""
        return len({(cpu.package, cpu.core) for cpu in self.topology})

    @property
    def nodes(self) -> tuple[int, ...]:
        """NUMA nodes of the allowed CPUs."""
        return tuple(sorted({cpu.node for cpu in self.topology}))


def read_cpu_facts(*, proc: Path = PROC, sys: Path = SYS, allowed: Iterable[int] | None = None) -> CpuFacts:
    """Read the facts of this process.

    Args:
        proc: the proc file system.
        sys: the sys file system, with control groups at `fs/cgroup`.
        allowed: affinity; None asks the system.
    """
    mine = tuple(sorted(os.sched_getaffinity(0) if allowed is None else allowed))
    online = parse_cpu_list(text_of(sys / "devices/system/cpu/online")) or mine
    hierarchies = tuple(control_groups(proc, sys, ("cpu", "cpuset")))
    quota_cpus = _smallest_quota(group for groups in hierarchies for group in groups)
    return CpuFacts(
        online=online,
        allowed=mine,
        quota_cpus=quota_cpus,
        exclusive=_is_exclusive([groups[0] for groups in hierarchies], mine, online),
        topology=_topology(sys, mine),
    )


def isa(*, proc: Path = PROC) -> frozenset[str]:
    """Instruction sets of the CPU that decide on precisions, by the kernel's names, such as `amx_bf16`."""
    for line in text_of(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return ISA_OF_INTEREST.intersection(value.split())
    return frozenset()


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Read `0-3,8` as (0, 1, 2, 3, 8).

    Raises:
        ValueError: it is no such list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        named = range(int(first), int(last if dash else first) + 1)
        if not named:
            raise ValueError(f"{part} names no CPU: its end is before its beginning")
        cpus.update(named)
    return tuple(sorted(cpus))


def _smallest_quota(groups: Iterable[Path]) -> float | None:
    return min((quota for group in groups if (quota := _quota(group)) is not None), default=None)


def _quota(group: Path) -> float | None:
    words = text_of(group / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = text_of(group / "cpu.cfs_quota_us"), text_of(group / "cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _is_exclusive(own: Sequence[Path], allowed: tuple[int, ...], online: tuple[int, ...]) -> bool:
    """Judge by our own group of each hierarchy: what a parent says, it says to its other children as well."""
    if not set(allowed) < set(online):
        return False  # the whole machine is never ours alone by looks
    quota_cpus = _smallest_quota(own)
    for group in own:
        if (group / "cpuset.cpus").is_file() and not text_of(group / "cpuset.cpus"):
            continue  # the effective ones are the parent's
        narrowed = parse_cpu_list(text_of(group / "cpuset.cpus.effective") or text_of(group / "cpuset.cpus"))
        if set(narrowed) != set(allowed):
            continue
        # The kernel appends "invalid" and a reason to a partition that is none.
        partition = text_of(group / "cpuset.cpus.partition")
        if partition in ("root", "isolated") or text_of(group / "cpuset.cpu_exclusive") == "1":
            return True
        if quota_cpus is not None and abs(quota_cpus - len(allowed)) <= QUOTA_TOLERANCE:
            return True
    return False


def _topology(sys: Path, cpus: Iterable[int]) -> tuple[LogicalCpu, ...]:
    node_of: dict[int, int] = {}
    for directory in sorted((sys / "devices/system/node").glob("node[0-9]*")):
        for cpu in parse_cpu_list(text_of(directory / "cpulist")):
            node_of[cpu] = int(directory.name.removeprefix("node"))
    found = []
    for cpu in cpus:
        directory = sys / f"devices/system/cpu/cpu{cpu}/topology"
        # Where nothing is said (some virtual machines), every CPU counts as a core of its own.
        package, core = _number(directory / "physical_package_id", 0), _number(directory / "core_id", cpu)
        found.append(LogicalCpu(cpu, package, core, node_of.get(cpu, 0)))
    return tuple(found)


def _number(path: Path, default: int) -> int:
    text = text_of(path)
    return int(text) if text else default
