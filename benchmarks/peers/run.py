"""Sluiceway beside what people would use instead: same weights, same images, same load generator, on this machine.

Contestants run in turns, each alone on the machine, round after round, so that a slow moment of the machine meets
all of them. First what they read is compared; then callers that wait, ever more of them. Each peer has an
environment of its own in .venv-peers/, made at the first run.

The bar: Sluiceway's best rate is at least that of the best peer. What a busy machine shows is printed and not judged.

    make bench-peers
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import psutil
from comparison import OURS, Comparison, Row, Texts
from contestants import CONTESTANTS, Running
from sluiceway_runtime import weights

from sluiceway.bench.load import Load
from sluiceway.bench.runs import Window, run_closed

SAMPLES = ("bus.jpg", "page.png")
CALLERS = (1, 2, 4, 8)
WATCHED_S = 2.0


def silent(_what: str, _seconds: float, _load: Load) -> None:
    """Nobody watches."""


async def measure(running: Running, name: str, images: int, seconds: float) -> list[Row]:
    rows = []
    for callers in CALLERS:
        window = Window(seconds / 4, seconds)
        load = await run_closed(running.send, callers, images, window, timeout_s=60, watch=silent)
        found = window.summary(load, None, by_end=True)
        failed = found.requests - len(found.latencies)
        p50_s, p99_s = (found.latencies.percentile_s(percentile) or 0.0 for percentile in (50, 99))
        row = Row(name, callers, found.answered_per_s.value, failed, p50_s * 1000, p99_s * 1000, running.memory_mb())
        print(
            f"{name:<16}{callers:>4} callers {row.answered_per_s:>8.2f} images/s  p50 {row.p50_ms:>7.1f} ms  "
            f"p99 {row.p99_ms:>7.1f} ms  {row.memory_mb:>6.0f} MB{f'  {failed} FAILED' if failed else ''}",
            flush=True,
        )
        rows.append(row)
    return rows


async def compare(names: Sequence[str], workers: int, seconds: float, rounds: int) -> Comparison:
    images = [path.read_bytes() for path in weights.pull_samples(SAMPLES).values()]
    rows: list[Row] = []
    texts: dict[str, Texts] = {}
    busy = 0.0
    for _ in range(rounds):
        for name in names:
            # Before anything of ours runs: what the machine does for others.
            busy = max(busy, await asyncio.to_thread(psutil.cpu_percent, WATCHED_S) / 100)
            async with CONTESTANTS[name](images, workers) as running:
                texts[name] = running.texts
                rows += await measure(running, name, len(images), seconds)
    return Comparison(rows, texts, busy)


def main() -> int:
    """Compare, print, and say by exit code whether the bars were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name in CONTESTANTS if name != OURS]
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of each contestant")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of callers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("out/bench-peers.json"))
    arguments = parser.parse_args()
    found = asyncio.run(compare([OURS, *arguments.peers], arguments.workers, arguments.seconds, arguments.rounds))
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    facts = {"machine": machine, "workers": arguments.workers, "seconds": arguments.seconds}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | found.to_dict(), indent=1) + "\n", encoding="utf-8")
    for name, share in found.equal.items():
        print(f"{name}: {share:.1%} of the texts are the same")
    for name, ratio in found.ratios.items():
        print(f"{name} = {ratio:.2f}")
    for fault in found.faults():
        print(fault)
    if not found.judged:
        print(f"not judged: others had {found.busy:.0%} of this machine's cores before we began")
        return 0
    print("FAILED" if found.faults() else "passed")
    return 1 if found.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
