"""How fast a cluster is simulated: simulated seconds in a second of processor, on one core.

    python benchmarks/simulation.py [--rounds 8] [--json FILE]

50 images a second with 10 regions each, for readers on the cores and for one on a GPU. Time of the processor counts, so
that neighbours disturb little; the best of ROUNDS counts, as what disturbs only ever makes it slower. A cluster's start
is told by itself.

The bar: 20 times as fast as real time. Exits 1 below it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from sluiceway_runtime.pool import PoolLimits
from sluiceway_simulation.cluster import ClusterPlan
from sluiceway_simulation.load import Load
from sluiceway_simulation.planning.predict import predict
from sluiceway_simulation.stages.profile import Curve, Profile
from sluiceway_simulation.stages.service import StagePlan

LOAD = Load(50, regions=10)
SECONDS, NEARLY_NONE_S = 8.0, 0.1
BAR = 20.0
DETECTION = StagePlan(Profile(Curve(((1, 57.0),))), workers=2)
READERS = {
    "on the cores": StagePlan(
        Profile(Curve(((1, 1.0), (32, 32.0)))), workers=2, limits=PoolLimits(max_batch=32, side_by_side=1)
    ),
    "on a GPU": StagePlan(
        Profile(Curve(((1, 0.5), (128, 7.0)))),
        credits=3,
        overlap=3,
        limits=PoolLimits(max_batch=128, mixes=True),
        backend="torch",
        on_device=True,
    ),
}


def cpu_s(plan: ClusterPlan, lasts_s: float, rounds: int) -> float:
    """Least time of the processor for so many simulated seconds."""
    times = []
    for _ in range(rounds):
        begun_s = time.process_time()
        predict(plan, LOAD, lasts_s=lasts_s)
        times.append(time.process_time() - begun_s)
    return min(times)


def main() -> int:
    """Measure, print, and say whether the bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name, reader in READERS.items():
        plan = ClusterPlan(
            {"detection": ("detection", DETECTION), "recognition": ("recognition", reader)},
            {"detection": 3, "recognition": 1},
        )
        start_s = cpu_s(plan, NEARLY_NONE_S, arguments.rounds)
        all_s = cpu_s(plan, SECONDS, arguments.rounds)
        figures[name] = {
            "start_s": start_s,
            "speed": (SECONDS - NEARLY_NONE_S) / (all_s - start_s),
            "with_start": SECONDS / all_s,
            "image_us": (all_s - start_s) / (LOAD.rate_per_s * (SECONDS - NEARLY_NONE_S)) * 1e6,
        }
        print(
            f"readers {name}: {figures[name]['speed']:.1f} times as fast as real time "
            f"({figures[name]['image_us']:.0f} us an image), {start_s * 1000:.0f} ms for a start"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(min(figure["speed"] for figure in figures.values()) < BAR)


if __name__ == "__main__":
    sys.exit(main())
