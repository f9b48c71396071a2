"""Where each worker runs: the one place that decides on numbers of workers, threads and pinned cores."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sluiceway_runtime.cores.facts import CpuFacts, LogicalCpu, parse_cpu_list, read_cpu_facts
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import StartupError

if TYPE_CHECKING:
    from sluiceway_runtime.config import StageConfig

__all__ = ["plan"]

logger = logging.getLogger(__name__)

# Host threads of a worker that computes on a GPU: enough to decode and copy, no more, as the device does the rest.
GPU_HOST_THREADS_MAX = 4
# A quota this little above a whole number does not earn one more worker.
QUOTA_SLACK = 0.05


def plan(
    config: StageConfig,
    devices: Sequence[str],
    facts: CpuFacts | None = None,
    *,
    host_threads_max: int = GPU_HOST_THREADS_MAX,
    per_device_max: int = 1,
) -> tuple[Placement, ...]:
    """Place the workers of a stage.

    The ownership rule: workers are pinned only to cores that are this server's own, because the parent assigned them
    (`config.cores`) or because the cpuset looks exclusive. Otherwise threads are capped and nothing is pinned, so that
    servers which know nothing of each other never stack on the same cores.

    Args:
        config: workers, threads, goal, cores and cpus as configured.
        devices: as `devices.resolve` gives them.
        facts: None reads them.
        host_threads_max: most threads that a worker on a GPU has on the host, where that is not configured.
        per_device_max: most workers that share a GPU, where that is not configured.

    Returns:
        One placement per worker, by index.

    Raises:
        StartupError: cores are assigned that this process may not use.
    """
    facts = facts or read_cpu_facts()
    own, pinned = _own_cpus(config, facts)
    share = min(bound for bound in (float(len(own)), facts.quota_cpus, config.cpus) if bound is not None)
    gpus = [device for device in devices if device != "cpu"]
    if gpus:
        return _on_gpus(config, gpus, share, host_threads_max, per_device_max)
    workers, threads = _numbers(config, own, share)
    _warn(workers, threads, share)
    cores = _deal(own, workers, threads) if pinned else [None] * workers
    return tuple(Placement(index, "cpu", cores[index], threads) for index in range(workers))


def _own_cpus(config: StageConfig, facts: CpuFacts) -> tuple[list[LogicalCpu], bool]:
    if config.cores is None:
        return list(facts.topology), facts.exclusive
    assigned = parse_cpu_list(config.cores)
    if outside := sorted(set(assigned) - set(facts.allowed)):
        allowed = ",".join(map(str, facts.allowed))
        raise StartupError(f"cores = {config.cores!r}: this process may not run on {outside}, only on {allowed}")
    return [cpu for cpu in facts.topology if cpu.cpu in assigned], True


def _numbers(config: StageConfig, own: Sequence[LogicalCpu], share: float) -> tuple[int, int]:
    """Workers and threads of each, from what is configured and what is automatic."""
    whole = max(1, math.floor(share + QUOTA_SLACK))
    if config.workers == "auto" and config.threads_per_worker == "auto":
        if config.goal == "latency":
            # One worker a NUMA node: threads across nodes wait for memory longer than they gain.
            workers = min(len({cpu.node for cpu in own}), whole)
            return workers, max(1, whole // workers)
        return max(1, math.ceil(share - QUOTA_SLACK)), 1
    if config.workers == "auto":
        assert config.threads_per_worker != "auto", "both automatic was handled above"
        return max(1, whole // config.threads_per_worker), config.threads_per_worker
    if config.threads_per_worker == "auto":
        # Asked-for workers share the cores; with more workers than cores, each has one thread.
        return config.workers, max(1, whole // config.workers)
    return config.workers, config.threads_per_worker


def _on_gpus(
    config: StageConfig, gpus: Sequence[str], share: float, host_threads_max: int, per_device_max: int
) -> tuple[Placement, ...]:
    """Workers take turns over the devices. None is pinned: they mostly wait for the device."""
    if config.workers_per_device == "auto":
        # A second worker that has to share a few threads with the first gains nothing.
        each = max(1, min(per_device_max, math.floor(share / len(gpus) / GPU_HOST_THREADS_MAX)))
    else:
        each = config.workers_per_device
    workers = len(gpus) * each
    if config.threads_per_worker == "auto":
        threads = min(host_threads_max, max(1, math.floor(share / workers)))
    else:
        threads = config.threads_per_worker
    return tuple(Placement(index, gpus[index % len(gpus)], None, threads) for index in range(workers))


def _warn(workers: int, threads: int, share: float) -> None:
    if workers * threads > math.ceil(share):
        logger.warning(
            "%d workers with %d threads each are more than the %.3g cores they may use; "
            "they will take turns, and each answer takes longer",
            workers,
            threads,
            share,
        )


def _deal(own: Sequence[LogicalCpu], workers: int, threads: int) -> list[tuple[int, ...]]:
    """Deal the CPUs out, round robin if there are not enough, so that even too many workers are spread evenly.

    While there are enough physical cores, siblings are not used. Otherwise a worker gets whole cores, close together. A
    worker has all its CPUs on one node as long as there is one with that many left.
    """
    rank: dict[int, int] = {}
    seen: dict[tuple[int, int], int] = {}
    for cpu in own:
        rank[cpu.cpu] = seen.get((cpu.package, cpu.core), 0)
        seen[cpu.package, cpu.core] = rank[cpu.cpu] + 1
    roomy = workers * threads <= len(seen)

    def near(cpu: LogicalCpu) -> tuple[int, ...]:
        place = (cpu.node, cpu.package, cpu.core)
        return (rank[cpu.cpu], *place) if roomy else (*place, rank[cpu.cpu])

    order = sorted(own, key=near)
    each = min(threads, len(order))
    if workers * each > len(order):
        names = [cpu.cpu for cpu in order]
        return [
            tuple(sorted(names[(index * each + nth) % len(names)] for nth in range(each))) for index in range(workers)
        ]
    free = order[: len(seen)] if roomy else order
    dealt = []
    for _ in range(workers):
        nodes = dict.fromkeys(cpu.node for cpu in free)
        on_one = ([cpu for cpu in free if cpu.node == node][:each] for node in nodes)
        taken = next((cpus for cpus in on_one if len(cpus) == each), free[:each])
        free = [cpu for cpu in free if cpu not in taken]
        dealt.append(tuple(sorted(cpu.cpu for cpu in taken)))
    return dealt
