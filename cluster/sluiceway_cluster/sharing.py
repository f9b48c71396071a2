"""What the replicas of a service are told, so that together they take of the machine what one would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sluiceway_runtime import cores
from sluiceway_runtime.control_groups import memory_limit_bytes
from sluiceway_runtime.errors import ConfigurationError
from sluiceway_runtime.server.budget import ORCHESTRATOR_SHARE

from sluiceway_cluster.division import Division, format_cores
from sluiceway_cluster.placement import ORCHESTRATOR, Written, variable
from sluiceway_cluster.scaling import split_cores, split_devices
from sluiceway_cluster.stages import ConfiguredStage

__all__ = ["shares_of"]


def shares_of(
    stages: Sequence[ConfiguredStage],
    replicas: Mapping[str, int],
    division: Division | None,
    written: Written,
    *,
    gpus: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[dict[str, str]]]:
    """Variables of every replica, by service and in order.

    Args:
        stages: that are started.
        replicas: of each of them, and of the orchestrator.
        division: cores of each stage; None where the configuration or a quota decides.
        written: what is configured, which stands as it is.
        gpus: those of each stage.

    Raises:
        ConfigurationError: a stage has fewer cores than replicas; every fault, one a line.
    """
    shares: dict[str, list[dict[str, str]]] = {ORCHESTRATOR: _orchestrators(replicas[ORCHESTRATOR], written)}
    faults = []
    # Of cores that all stages share: those that stages with few threads have had, one stage behind the other.
    dealt = 0
    for stage in stages:
        count = replicas[stage.name]
        own = division.cores[stage.name] if division else ()
        threads = _threads(stage) * count
        if division and division.shared and 0 < threads < len(own):
            own = tuple(own[(dealt + nth) % len(own)] for nth in range(threads))
            dealt += threads
        try:
            shares[stage.name] = _stage(stage, count, own, written)
        except ConfigurationError as error:
            faults.append(str(error))
            continue
        for share, device in zip(
            shares[stage.name], split_devices((gpus or {}).get(stage.name, ()), count), strict=True
        ):
            if device:
                share[variable(stage.entry.section, "device")] = device
    if faults:
        raise ConfigurationError("\n".join(faults))
    return shares


def _threads(stage: ConfiguredStage) -> int:
    """How many threads a replica computes with; 0 where it takes as many as there are cores."""
    workers, threads = stage.config.workers, stage.config.threads_per_worker
    return 0 if workers == "auto" or threads == "auto" else workers * threads


def _stage(stage: ConfiguredStage, count: int, own: Sequence[int], written: Written) -> list[dict[str, str]]:
    section = stage.entry.section
    if own:
        parts = split_cores(stage.name, own, count)
        return [{variable(section, "cores"): format_cores(part)} for part in parts]
    if count == 1:
        return [{}]
    if stage.config.cores:
        parts = split_cores(stage.name, cores.parse_cpu_list(stage.config.cores), count)
        return [{variable(section, "cores"): format_cores(part)} for part in parts]
    if written.has(section, "cpus"):
        return [{} for _ in range(count)]
    facts = cores.read_cpu_facts()
    # Nothing is pinned, and each would plan for all of it.
    cpus = min(len(facts.allowed), facts.quota_cpus or len(facts.allowed)) / count
    return [{variable(section, "cpus"): f"{cpus:g}"} for _ in range(count)]


def _orchestrators(count: int, written: Written) -> list[dict[str, str]]:
    if count == 1 or written.has(ORCHESTRATOR, "memory_bytes"):
        return [{} for _ in range(count)]
    each_bytes = int(memory_limit_bytes() * ORCHESTRATOR_SHARE / count)
    return [{variable(ORCHESTRATOR, "memory_bytes"): str(each_bytes)} for _ in range(count)]
