"""How often the servers wake up: context switches an image of orchestrator and fronts, and a second when idle.

    python benchmarks/wakes.py [--images 100] [--idle-s 20] [--json FILE] [PICTURE ...]

Images go one at a time through a cluster as `sluiceway up` starts it, with two workers a stage, whose own switches do
not count. Every figure is shown by process and thread. CPU time an image stands beside it, which neighbours may spoil.
Judges nothing: the bars are in tests/e2e/test_wakes.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_runtime import weights
from switches import switches

from sluiceway import AsyncClient

SAMPLES = ("bus.jpg", "page.png")
WARM_UP = 10
# What a start leaves behind, such as gRPC's threads that look ever more rarely whether there is work.
CALM_S = 20.0
STAGES = ("DETECTION", "RECOGNITION")

Counts = dict[str, Counter[str]]


def since(before: Counts, after: Counts, parts: float) -> dict[str, dict[str, float]]:
    """What came to the counts, divided by so many images or seconds; threads that did not wake are left out."""
    return {
        name: {thread: count / parts for thread, count in (counts - before[name]).most_common()}
        for name, counts in after.items()
    }


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU time of each process so far."""
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}


async def measure(pictures: Mapping[str, bytes], images: int, idle_s: float) -> dict[str, dict[str, object]]:
    """Figures by picture, and those of the idle servers."""
    workers = {f"SLUICEWAY_{stage}__WORKERS": "2" for stage in STAGES}
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=workers)
    results: dict[str, dict[str, object]] = {}
    async with Cluster(plan.servers) as cluster:
        pids = {name: pid for name, pid in cluster.pids.items() if pid is not None}
        print("pids:", pids, flush=True)
        async with AsyncClient(plan.address) as client:
            for name, picture in pictures.items():
                for _ in range(WARM_UP):
                    result = await client.process(picture)
                before, before_s = switches(pids), cpu_s(pids)
                for _ in range(images):
                    await client.process(picture)
                counted = since(before, switches(pids), images)
                spent_s = {server: (spent - before_s[server]) * 1000 / images for server, spent in cpu_s(pids).items()}
                results[name] = {"regions": len(result.regions), "switches": counted, "cpu_ms": spent_s}
        await asyncio.sleep(CALM_S)
        before, before_s = switches(pids), cpu_s(pids)
        await asyncio.sleep(idle_s)
        counted = since(before, switches(pids), idle_s)
        spent_s = {server: (spent - before_s[server]) * 1000 / idle_s for server, spent in cpu_s(pids).items()}
        results["idle, a second"] = {"switches": counted, "cpu_ms": spent_s}
    return results


def show(name: str, row: Mapping[str, object]) -> None:
    """Print one table."""
    counted, spent_ms = row["switches"], row["cpu_ms"]
    assert isinstance(counted, dict)
    assert isinstance(spent_ms, dict)
    regions = f", {row['regions']} regions" if "regions" in row else ""
    total = sum(sum(threads.values()) for threads in counted.values())
    print(f"{name}{regions}: {total:.1f} switches")
    for server, threads in counted.items():
        parts = ", ".join(f"{thread} {count:.1f}" for thread, count in threads.items())
        print(f"  {server:<14}{sum(threads.values()):7.1f}  CPU {spent_ms[server]:6.2f} ms   {parts}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, help=f"by default the samples {' and '.join(SAMPLES)}")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--idle-s", type=float, default=20)
    parser.add_argument("--json", type=Path, default=Path("out/bench-wakes.json"))
    arguments = parser.parse_args()
    paths = {path.name: path for path in arguments.pictures} or weights.pull_samples(SAMPLES)
    pictures = {name: path.read_bytes() for name, path in paths.items()}
    results = asyncio.run(measure(pictures, arguments.images, arguments.idle_s))
    for name, row in results.items():
        show(name, row)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
