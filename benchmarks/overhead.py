"""What the cluster adds to the models: one image at a time, over the cluster and called directly in this process.

Both run the same weights and precision, with one compute thread for each call of a model, on the same cores, in turns
within one run, so that a slow moment of the machine meets both. The direct call is tests/support/direct_pipeline.py,
which shares no code with the services. The cluster is laid out as `sluiceway up` does on 2 cores: two workers for each
stage, so the crops of a page are read two at a time; the direct call reads as many at a time, in threads.

    make bench-overhead
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from direct_pipeline import DirectPipeline, read_characters
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_runtime import weights
from sluiceway_runtime.cores import isa

from sluiceway import AsyncClient

# The bar: at most so many milliseconds at the median, on 2 cores.
MAX_OVERHEAD_MS = 10.0
DETECTOR = "text-nano"
SAMPLES = ("bus.jpg", "page.png")
WARM_UP = 5


def milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000


async def measure(rounds: int, workers: int) -> dict[str, dict[str, float]]:
    detector = weights.resolve(DETECTOR, kind="detection")
    recogniser = weights.resolve("ppocrv6-tiny", kind="recognition")
    direct = DirectPipeline(
        detector.path,
        recogniser.path,
        read_characters(recogniser.files["config"]),
        precision="bf16" if "amx_bf16" in isa() else "f32",
        readers=workers,
    )
    images = {name: path.read_bytes() for name, path in weights.pull_samples(SAMPLES).items()}
    results: dict[str, dict[str, float]] = {}
    threads = {f"SLUICEWAY_{stage}__THREADS_PER_WORKER": "1" for stage in ("DETECTION", "RECOGNITION")}
    counts = {f"SLUICEWAY_{stage}__WORKERS": str(workers) for stage in ("DETECTION", "RECOGNITION")}
    model = {"SLUICEWAY_DETECTION__MODEL": DETECTOR}
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=counts | threads | model)
    async with Cluster(plan.servers), AsyncClient(plan.address) as client:
        for name, image in images.items():
            direct_ms, cluster_ms = [], []
            for turn in range(WARM_UP + rounds):
                start = time.perf_counter()
                regions = direct(image)
                middle = time.perf_counter()
                result = await client.process(image)
                took = milliseconds(middle)
                if len(result.regions) != len(regions):
                    raise SystemExit(f"{name}: {len(result.regions)} regions from the cluster, {len(regions)} directly")
                if turn >= WARM_UP:
                    direct_ms.append((middle - start) * 1000)
                    cluster_ms.append(took)
            results[name] = {
                "regions": len(regions),
                "direct_ms": statistics.median(direct_ms),
                "cluster_ms": statistics.median(cluster_ms),
                "overhead_ms": statistics.median(cluster_ms) - statistics.median(direct_ms),
                "ratio": statistics.median(cluster_ms) / statistics.median(direct_ms),
            }
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="of each stage; the bar is for 2, as `up` has them")
    parser.add_argument("--json", type=Path, default=Path("out/bench-overhead.json"))
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.rounds, arguments.workers))
    print(f"{'image':<12}{'regions':>8}{'direct ms':>11}{'cluster ms':>12}{'overhead ms':>13}{'ratio':>7}")
    for name, row in results.items():
        print(
            f"{name:<12}{row['regions']:>8}{row['direct_ms']:>11.1f}{row['cluster_ms']:>12.1f}"
            f"{row['overhead_ms']:>13.1f}{row['ratio']:>7.2f}"
        )
    worst = max(row["overhead_ms"] for row in results.values())
    passed = worst <= MAX_OVERHEAD_MS
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps(
            {"images": results, "worst_overhead_ms": worst, "bar_ms": MAX_OVERHEAD_MS, "passed": passed}, indent=1
        )
    )
    print(f"worst overhead {worst:.1f} ms, bar {MAX_OVERHEAD_MS:.0f} ms: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
