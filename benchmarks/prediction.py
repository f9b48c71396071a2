"""How far predictions are from real runs on this machine: nine steady points and three steps of the load, all printed.

The stages are profiled as `sluiceway tune` does. Each of three settings is then run at three parts of the throughput
that is predicted for it, and with a step from the least of them to the most; all of that RUNS times. Each run is
predicted with the very arrivals that it had. What is compared are medians of the runs.

The bars: images a second within 10%, the 99th percentile within 20%, or within the spread of the real runs where that
is more. Exits 1 if a point is beyond them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sluiceway_cluster.cluster import Cluster
from sluiceway_cluster.commands.changes import as_variables
from sluiceway_cluster.plan import plan_cluster
from sluiceway_cluster.tuning.measuring import WARM_UP_S, MeasuredCluster, measured, settings_of
from sluiceway_cluster.tuning.profiling import measure_profile
from sluiceway_simulation.planning.predict import predict
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile

from sluiceway.bench.arrivals import Arrival, poisson
from sluiceway.cli.embedded import Changes

SETTINGS = (
    {"detection": Workers(1, 1), "recognition": Workers(1, 1)},
    {"detection": Workers(2, 1), "recognition": Workers(1, 1)},
    {"detection": Workers(2, 1), "recognition": Workers(2, 1)},
)
# Of the throughput that is predicted; for a step, of its first and its second half.
LOADS = ((0.3,), (0.6,), (0.8,), (0.3, 0.8))
RUNS = 5
SECONDS = 8.0
PER_S_BAR, P99_BAR = 0.10, 0.20


@asynccontextmanager
async def start(sources: list[str], workers: Mapping[str, Workers] | None) -> AsyncIterator[MeasuredCluster]:
    """The cluster of a setting; None is that of the configuration as it is."""
    overrides = as_variables(Changes(settings_of(workers) if workers else ()), None, os.environ)
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=overrides)
    cluster = Cluster(plan.servers)
    try:
        await cluster.start()
        async with measured(plan, sources, pipeline=None) as running:
            yield running
    finally:
        await cluster.stop()


async def compare(profile: PipelineProfile, sources: list[str]) -> list[dict[str, Any]]:
    """Run and predict every point."""
    rows: list[dict[str, Any]] = []
    for workers in SETTINGS:
        name = ", ".join(f"{kind} {its.workers} x {its.threads}" for kind, its in workers.items())
        # A simulation has the clock of the whole process: nothing else is to run meanwhile.
        most_per_s = await asyncio.to_thread(_most_per_s, profile, workers)
        points = {
            parts: [_arrivals([part * most_per_s for part in parts], len(sources), run) for run in range(RUNS)]
            for parts in LOADS
        }
        async with start(sources, workers) as cluster:
            real = {parts: [await _real(cluster, due) for due in runs] for parts, runs in points.items()}
        for parts, runs in points.items():
            foretold = [await asyncio.to_thread(_predicted, profile, workers, due, run) for run, due in enumerate(runs)]
            at = " then ".join(f"{part * most_per_s:.1f}" for part in parts)
            rows.append({"setting": name, "rate_per_s": at, **_compared(real[parts], foretold)})
            _print(rows[-1])
    return rows


async def _real(cluster: MeasuredCluster, due: Sequence[Arrival]) -> tuple[float, float]:
    stretch = await cluster.play(due, SECONDS)
    return stretch.per_s, stretch.p99_ms


def _arrivals(rates_per_s: Sequence[float], sources: int, seed: int) -> list[Arrival]:
    """As many seconds of each rate; the warm-up is of the first."""
    chance = random.Random(f"{seed}/{rates_per_s}")
    due, begun_s = [], 0.0
    for rate_per_s in rates_per_s:
        lasts_s = SECONDS / len(rates_per_s) + (0.0 if due else WARM_UP_S)
        # In any order, as they come to a server.
        due += [
            Arrival(begun_s + arrival.due_s, chance.randrange(sources))
            for arrival in poisson(rate_per_s, lasts_s, sources, chance)
        ]
        begun_s += lasts_s
    return due


def _most_per_s(profile: PipelineProfile, workers: Mapping[str, Workers]) -> float:
    plan, each_ms = cluster_of(profile, workers, cores=profile.cores), profile.orchestrator_ms + profile.client_ms
    return predict(plan, load_of(profile), lasts_s=30.0, orchestrator_ms=each_ms, callers=8).per_s


def _predicted(
    profile: PipelineProfile, workers: Mapping[str, Workers], due: Sequence[Arrival], seed: int
) -> tuple[float, float]:
    found = predict(
        cluster_of(profile, workers, cores=profile.cores),
        load_of(profile),
        lasts_s=WARM_UP_S + SECONDS,
        warm_up_part=WARM_UP_S / (WARM_UP_S + SECONDS),
        orchestrator_ms=profile.orchestrator_ms + profile.client_ms,
        due=due,
        seed=seed,
    )
    return found.per_s, found.p99_ms


def _compared(real: Sequence[tuple[float, float]], foretold: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians, how far they are apart, and how far real runs are from each other."""
    row: dict[str, Any] = {}
    for place, name in enumerate(("per_s", "p99_ms")):
        measured_here = [run[place] for run in real]
        median = statistics.median(measured_here)
        predicted = statistics.median(run[place] for run in foretold)
        row |= {
            f"predicted_{name}": predicted,
            f"measured_{name}": median,
            f"{name}_error": (predicted - median) / median,
            f"{name}_spread": (max(measured_here) - min(measured_here)) / median,
        }
    row["kept"] = abs(row["per_s_error"]) <= PER_S_BAR and abs(row["p99_ms_error"]) <= max(
        P99_BAR, row["p99_ms_spread"]
    )
    return row


def _print(row: Mapping[str, Any]) -> None:
    print(
        f"{row['setting']:<36} at {row['rate_per_s']:>14}/s: images/s {row['predicted_per_s']:6.1f} predicted, "
        f"{row['measured_per_s']:6.1f} measured ({row['per_s_error']:+4.0%}); p99 {row['predicted_p99_ms']:6.0f} ms, "
        f"{row['measured_p99_ms']:6.0f} ms ({row['p99_ms_error']:+4.0%}, real runs {row['p99_ms_spread']:.0%} apart)"
        f"{'' if row['kept'] else '  BEYOND'}",
        flush=True,
    )


def main() -> int:
    """Compare, print, and say whether the bars are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="images")
    parser.add_argument("--profile", type=Path, help="take this profile, of an earlier run here")
    parser.add_argument("--json", type=Path, help="write the rows here, and the profile beside them")
    arguments = parser.parse_args()
    if arguments.profile:
        profile = PipelineProfile.read(arguments.profile)
    else:
        profile = asyncio.run(
            measure_profile(
                lambda workers: start(arguments.sources, workers), "read", lambda text: print(text, file=sys.stderr)
            )
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        profile.write(arguments.json.with_suffix(".profile.json"))
    rows = asyncio.run(compare(profile, arguments.sources))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(
        f"{sum(row['kept'] for row in rows)} of {len(rows)} points within {PER_S_BAR:.0%} (images/s) and "
        f"{P99_BAR:.0%}, or the spread of real runs (p99)"
    )
    return int(not all(row["kept"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
