"""What seeing costs a user: CPU time an image of the whole cluster, with metrics, logs and stories beside without.

    python benchmarks/seeing.py [--rounds 60] [--json FILE]

Clusters of the default pipeline, a worker for each stage, run at once: some whose servers neither count, log nor
remember, some as they are by default, and some that send a tenth of their traces to a collector as well. Each reads the
same photograph in turn, forwards in one round and backwards in the next, and the CPU time of all its processes counts.
There are several of each kind, as two processes of one program differ by a percent or two by chance. Of the ratios of
the rounds the mean counts, with the upper end of its 95 % interval.

`watching.py` and `recorder.py` ask the same of an orchestrator alone, between stages that compute nothing.

Exits 1 if the upper end is above the bar.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psutil
from recorder import cpu_s, judge
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_runtime import weights
from sluiceway_runtime.cores import isa

from orchestrator import process
from sluiceway import AsyncClient

# Of CPU time an image, over that of a cluster that sees nothing: the upper end of the interval.
BARS = {"seeing": 1.02, "seeing and tracing a tenth": 1.04}
SAMPLE = "bus.jpg"
IN_FLIGHT = 2
HERE = Path(__file__).parent
# All clusters compute alike: `auto` tries out which precision is fastest, and may find another one in another cluster.
BASE = {
    "SLUICEWAY_DETECTION__PRECISION": "bf16" if "amx_bf16" in isa() else "f32",
    "SLUICEWAY_DETECTION__WORKERS": "1",
    "SLUICEWAY_DETECTION__THREADS_PER_WORKER": "1",
    "SLUICEWAY_RECOGNITION__WORKERS": "1",
    "SLUICEWAY_RECOGNITION__THREADS_PER_WORKER": "1",
}
BLIND = {
    f"SLUICEWAY_{server}__REMEMBER_REQUESTS": "0" for server in ("DETECTION", "RECOGNITION", "ORCHESTRATOR")
}  # fmt: skip


def cluster(variables: Mapping[str, str], *, blind: bool) -> tuple[Cluster, str]:
    """One cluster, and where its orchestrator will be."""
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    plan = plan_cluster(None, environment, free_ports=True, overrides={**BASE, **variables})
    how = "blind" if blind else "seeing"
    servers = [
        replace(spec, module="support.unseen", arguments=(how, spec.module, *spec.arguments)) for spec in plan.servers
    ]
    return Cluster(servers), plan.address


def cluster_cpu_s(started: Cluster) -> float:
    """CPU time of all its processes so far."""
    fronts = [psutil.Process(pid) for pid in started.pids.values() if pid is not None]
    return sum(cpu_s(each) for front in fronts for each in (front, *front.children(recursive=True)))


async def cpu_ms(started: Cluster, client: AsyncClient, image: bytes, images: int) -> float:
    """CPU time an image, while so many are read."""
    left = iter(range(images))

    async def one_after_the_other() -> None:
        for _ in left:
            result = await client.process(image)
            if not result.ok:
                raise RuntimeError(f"a photograph could not be read: {result.error}")

    before_s = cluster_cpu_s(started)
    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    return (cluster_cpu_s(started) - before_s) * 1000 / images


async def measure(copies: int, rounds: int, images: int) -> dict[str, list[float]]:
    """Ratios over the clusters that see nothing, by variant, a round each."""
    image = weights.pull_samples([SAMPLE])[SAMPLE].read_bytes()
    async with AsyncExitStack() as stack:
        _, collector = stack.enter_context(process("--role", "collector", core=min(os.sched_getaffinity(0))))
        traces = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
        }
        variants = {"nothing": BLIND, "seeing": {}, "seeing and tracing a tenth": traces}
        running = []
        for _ in range(copies):
            for name, variables in variants.items():
                found, address = cluster(variables, blind=variables is BLIND)
                await stack.enter_async_context(found)
                client = await stack.enter_async_context(AsyncClient(address))
                # What is done once only: connections, methods that are specialised, memory that is touched.
                await cpu_ms(found, client, image, 2 * images)
                running.append((name, found, client))
        ratios: dict[str, list[float]] = {name: [] for name in BARS}
        for number in range(rounds):
            spent = dict.fromkeys(variants, 0.0)
            for name, found, client in running[:: 1 if number % 2 else -1]:
                spent[name] += await cpu_ms(found, client, image, images) / copies
            for name in BARS:
                ratios[name].append(spent[name] / spent["nothing"])
        print(", ".join(f"{name} {value:.1f} ms" for name, value in spent.items()), "in the last round", flush=True)
        return ratios


def main() -> int:
    """Measure, print, and say whether it is within the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=2, help="clusters of each kind")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--images", type=int, default=10, help="in each turn of a cluster")
    parser.add_argument("--json", type=Path, default=Path("out/bench-seeing.json"))
    arguments = parser.parse_args()
    ratios = asyncio.run(measure(arguments.copies, arguments.rounds, arguments.images))
    return judge(ratios, BARS, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
