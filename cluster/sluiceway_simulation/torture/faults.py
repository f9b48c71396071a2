"""What can go wrong, and how it is over again.

Each is one coroutine, which is cancelled when all faults end: its `finally` heals. What heals leaves a cluster that can
work: every stage with a replica that will be ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sluiceway_simulation.cluster import Cluster
from sluiceway_simulation.stages.process import Process
from sluiceway_simulation.stages.service import StageService
from sluiceway_simulation.torture.plan import Fault
from sluiceway_simulation.virtual_time import current_loop

__all__ = ["KINDS", "ROLLOUTS", "befall"]

Kind = Callable[[Cluster, Fault], Awaitable[None]]


async def befall(cluster: Cluster, fault: Fault) -> None:
    """Let a fault happen, from its beginning to its end."""
    await KINDS[fault.kind](cluster, fault)


def _replica(cluster: Cluster, fault: Fault) -> Process | None:
    replicas = cluster.replicas[fault.stage]
    return replicas[fault.which % len(replicas)] if replicas else None


def _service(cluster: Cluster, fault: Fault) -> StageService | None:
    replica = _replica(cluster, fault)
    return None if replica is None else replica.service


async def _worker_dies(cluster: Cluster, fault: Fault) -> None:
    service = _service(cluster, fault)
    if service is not None and (workers := service.bench.workers):
        workers[fault.which % len(workers)].die("it was ended by SIGKILL")


async def _worker_hangs(cluster: Cluster, fault: Fault) -> None:
    """For good, as far as it has work: that is what it is replaced for. Nobody notices one that has none."""
    service = _service(cluster, fault)
    if service is None or not (workers := service.bench.workers):
        return
    worker = workers[fault.which % len(workers)]
    worker.hang()
    try:
        await asyncio.Event().wait()
    finally:
        worker.go_on()


async def _worker_leaves(cluster: Cluster, fault: Fault) -> None:
    """Somebody else asks it to exit."""
    service = _service(cluster, fault)
    if service is not None and (workers := service.bench.workers):
        workers[fault.which % len(workers)].stop()


async def _workers_are_slow(cluster: Cluster, fault: Fault) -> None:
    service = _service(cluster, fault)
    if service is None:
        return
    service.bench.slowness = 2 + 30 * fault.amount
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        service.bench.slowness = 1.0


async def _no_worker_starts(cluster: Cluster, fault: Fault) -> None:
    """Its workers die, and none can be started for a while."""
    service = _service(cluster, fault)
    if service is None:
        return
    service.bench.broken = "it exited with code 1"
    for worker in list(service.bench.workers):
        worker.die("it was ended by SIGKILL")
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        service.bench.broken = ""


async def _process_dies(cluster: Cluster, fault: Fault) -> None:
    """The name forgets it at once, and another comes later."""
    replica = _replica(cluster, fault)
    if replica is None:
        return
    cluster.kill(fault.stage, replica)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        cluster.add(fault.stage)


async def _process_dies_in_place(cluster: Cluster, fault: Fault) -> None:
    """It comes back at its address, which its name keeps all the time."""
    replica = _replica(cluster, fault)
    if replica is None:
        return
    revive = cluster.kill_in_place(fault.stage, replica)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        revive()


async def _process_drains(cluster: Cluster, fault: Fault) -> None:
    """SIGTERM, and another comes later."""
    replica = _replica(cluster, fault)
    if replica is None:
        return
    cluster.terminate(fault.stage, replica)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        cluster.add(fault.stage)


async def _stage_goes_to_zero(cluster: Cluster, fault: Fault) -> None:
    gone = list(cluster.replicas[fault.stage])
    for replica in gone:
        cluster.terminate(fault.stage, replica)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        for _ in range(max(1, len(gone))):
            cluster.add(fault.stage)


async def _stage_grows(cluster: Cluster, fault: Fault) -> None:
    added = [cluster.add(fault.stage) for _ in range(1 + fault.which % 3)]
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        for replica in added:
            if replica in cluster.replicas[fault.stage] and len(cluster.replicas[fault.stage]) > 1:
                cluster.terminate(fault.stage, replica)


async def _version_changes(cluster: Cluster, fault: Fault) -> None:
    """A rolling update: each replica is replaced by one of the next version, one after the other."""
    cluster.versions[fault.stage] += 1
    old = list(cluster.replicas[fault.stage])
    try:
        for replica in old:
            cluster.add(fault.stage)
            await asyncio.sleep(fault.lasts_s / len(old))
            _retire(cluster, fault.stage, replica)
    finally:
        for replica in old:
            _retire(cluster, fault.stage, replica)
        if not cluster.replicas[fault.stage]:
            cluster.add(fault.stage)


def _retire(cluster: Cluster, stage: str, replica: Process) -> None:
    if replica in cluster.replicas[stage]:
        cluster.terminate(stage, replica)


async def _way_is_cut(cluster: Cluster, fault: Fault) -> None:
    replica = _replica(cluster, fault)
    if replica is None:
        return
    weather = cluster.network.weather
    weather.cut(replica.address)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        weather.heal(replica.address)


async def _way_is_slow(cluster: Cluster, fault: Fault) -> None:
    replica = _replica(cluster, fault)
    if replica is None:
        return
    slow = cluster.network.weather.slow
    slow[replica.address] = 10 + 500 * fault.amount
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        slow.pop(replica.address, None)


async def _names_fail(cluster: Cluster, fault: Fault) -> None:
    cluster.network.unknown.add(fault.stage)
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        cluster.network.unknown.discard(fault.stage)


async def _names_are_old(cluster: Cluster, fault: Fault) -> None:
    """A resolver answers for a while with what was true before."""
    cluster.network.remembered[fault.stage] = tuple(cluster.network.names[fault.stage])
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        cluster.network.remembered.pop(fault.stage, None)


async def _clock_jumps(cluster: Cluster, fault: Fault) -> None:
    """The machine stands still, and all that was due meanwhile is late."""
    del cluster
    current_loop().jump(fault.amount * 2)


KINDS: Mapping[str, Kind] = {
    "clock_jumps": _clock_jumps,
    "names_are_old": _names_are_old,
    "names_fail": _names_fail,
    "no_worker_starts": _no_worker_starts,
    "process_dies": _process_dies,
    "process_dies_in_place": _process_dies_in_place,
    "process_drains": _process_drains,
    "stage_goes_to_zero": _stage_goes_to_zero,
    "stage_grows": _stage_grows,
    "version_changes": _version_changes,
    "way_is_cut": _way_is_cut,
    "way_is_slow": _way_is_slow,
    "worker_dies": _worker_dies,
    "worker_hangs": _worker_hangs,
    "worker_leaves": _worker_leaves,
    "workers_are_slow": _workers_are_slow,
}
ROLLOUTS = frozenset({"version_changes"})
