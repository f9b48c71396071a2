"""What gives out as a stage grows to a thousand servers: in simulation, and an orchestrator with as many connections.

    python benchmarks/scaling.py [--replicas 10 100 300 1000] [--seconds 10] [--minute] [--json FILE]

Simulated: a cluster with the times of a profile that is shipped (text-small on cores, one to a server), as many
orchestrators as its load needs, all of them busy for 0.6 of their time. For each size: how long images take, how
evenly the servers are loaded, what connections, health checks and names amount to, and how long it took to simulate.
With `--minute` the largest size is simulated for a minute and nothing else is done.

Real: the orchestrator's own process with as many connections to a stage that answers at once: memory, descriptors,
processor while nothing is asked, and processor for an image.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from sluiceway_simulation.cluster import Cluster
from sluiceway_simulation.planning.fleet import needed, server_per_s
from sluiceway_simulation.planning.predict import predict
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile, shipped

from orchestrator import orchestrator, process, throughput, wait_until_served

PROFILE = "xeon16-h100-text-small"
SERVERS = {"detection": Workers(1, 1), "recognition": Workers(1, 1)}
# Of what detectors and orchestrators can do.
PART = 0.6
IDLE_S = 20.0
LOADED_S = 4.0


def simulated(replicas: int, seconds: float) -> dict[str, float]:
    """A cluster of so many detectors under its load."""
    profile = PipelineProfile.read(shipped()[PROFILE])
    rate_per_s = PART * replicas * server_per_s(profile, "detection", SERVERS["detection"])
    readers = needed(profile, "recognition", SERVERS["recognition"], rate_per_s)
    orchestrators = math.ceil(rate_per_s * profile.orchestrator_ms / 1000 / PART)
    plan = cluster_of(
        profile,
        SERVERS,
        cores=None,
        replicas={"detection": replicas, "recognition": readers},
        orchestrators=orchestrators,
    )
    spread: dict[str, float] = {}

    def look(cluster: Cluster) -> None:
        busy = sorted(process.service.bench.busy_s for process in cluster.replicas["detection"])
        spread["busiest_to_median"] = busy[-1] / statistics.median(busy)
        spread["idlest_to_median"] = busy[0] / statistics.median(busy)
        spread["messages_per_s"] = cluster.network.weather.messages / seconds

    begun_s = time.process_time()
    load, each_ms = load_of(profile, rate_per_s), profile.orchestrator_ms
    found = predict(plan, load, lasts_s=seconds, orchestrator_ms=each_ms, look=look)
    cpu_s = time.process_time() - begun_s
    return {
        "replicas": replicas,
        "readers": readers,
        "orchestrators": orchestrators,
        "rate_per_s": rate_per_s,
        "per_s": found.per_s,
        "failed": found.failed,
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "connections": orchestrators * (replicas + readers),
        **spread,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "cpu_s_for_a_minute": cpu_s / seconds * 60,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def connected(replicas: int) -> dict[str, float]:
    """The orchestrator's process with so many detectors, all of which are one process that answers at once."""
    with (
        process("--role", "detection", "--host", "0.0.0.0", core=1) as (_, detection),
        process("--role", "recognition", core=1) as (_, recognition),
    ):
        port = detection.rpartition(":")[2]
        # All of 127.0.0.0/8 is this machine.
        targets = ",".join(f"127.0.{1 + index // 250}.{1 + index % 250}:{port}" for index in range(replicas))
        begun_s = time.monotonic()
        with orchestrator(targets, recognition, core=0) as (server, address):
            await wait_until_served(address)
            while len(server.net_connections(kind="tcp")) < replicas:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
            ready_s = time.monotonic() - begun_s
            # The first calls of a connection cost more.
            await throughput(address, max(1.0, replicas / 50), 8)
            idle = sum(server.cpu_times()[:2])
            await asyncio.sleep(IDLE_S)
            loaded = sum(server.cpu_times()[:2])
            per_s = await throughput(address, LOADED_S, 8)
            # Half a second is not counted by `throughput`, and computed for as well.
            images = per_s * (LOADED_S + 0.5)
            return {
                "replicas": replicas,
                "ready_s": ready_s,
                "memory_mb": server.memory_info().rss / 2**20,
                "descriptors": server.num_fds(),
                "idle_cpu_percent": (loaded - idle) / IDLE_S * 100,
                "cpu_ms_an_image": (sum(server.cpu_times()[:2]) - loaded) / images * 1000,
            }


def _show(rows: list[dict[str, float]]) -> None:
    for name in rows[0]:
        print(f"{name:<20}" + "".join(f"{row[name]:>12,.2f}" for row in rows))


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated")
    parser.add_argument("--minute", action="store_true", help="only the largest, for a minute")
    parser.add_argument("--only", choices=("simulated", "connected"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.minute:
        figures["minute"] = [simulated(max(arguments.replicas), 60.0)]
    else:
        if arguments.only != "connected":
            figures["simulated"] = [simulated(count, arguments.seconds) for count in arguments.replicas]
        if arguments.only != "simulated":
            figures["connected"] = [asyncio.run(connected(count)) for count in arguments.replicas]
    for title, rows in figures.items():
        print(title)
        _show(rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
