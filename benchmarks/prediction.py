"""How far predictions are from real runs on this machine: three settings under three loads, all printed, none left out.

The stages are profiled as `sluiceway tune` does. Each setting is then run at parts of the throughput that is predicted
for it. The bars: images a second within 10%, the 99th percentile within 20%.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sluiceway_cluster.cluster import Cluster
from sluiceway_cluster.commands.changes import as_variables
from sluiceway_cluster.plan import plan_cluster
from sluiceway_cluster.tuning.measuring import MeasuredCluster, measured, settings_of
from sluiceway_cluster.tuning.profiling import measure_profile
from sluiceway_simulation.planning.predict import predict
from sluiceway_simulation.profiles.model import Workers, cluster_of, load_of
from sluiceway_simulation.profiles.profile import PipelineProfile

from sluiceway.cli.embedded import Changes

SETTINGS = (
    {"detection": Workers(1, 1), "recognition": Workers(1, 1)},
    {"detection": Workers(2, 1), "recognition": Workers(1, 1)},
    {"detection": Workers(2, 1), "recognition": Workers(2, 1)},
)
PARTS = (0.3, 0.6, 0.8)
SECONDS = 12.0
SIMULATED_S = 60.0
PER_S_BAR, P99_BAR = 0.10, 0.20


@asynccontextmanager
async def start(sources: list[str], workers: Mapping[str, Workers]) -> AsyncIterator[MeasuredCluster]:
    """The cluster of a setting."""
    overrides = as_variables(Changes(settings_of(workers)), None, os.environ)
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=overrides)
    cluster = Cluster(plan.servers)
    try:
        await cluster.start()
        async with measured(plan, sources, pipeline=None) as running:
            yield running
    finally:
        await cluster.stop()


async def compare(sources: list[str]) -> list[dict[str, float | str]]:
    """Profile, then run and predict every point."""
    profile = await measure_profile(
        lambda workers: start(sources, workers), "read", lambda text: print(text, file=sys.stderr)
    )
    rows: list[dict[str, float | str]] = []
    for workers in SETTINGS:
        name = ", ".join(f"{kind} {its.workers} x {its.threads}" for kind, its in workers.items())
        async with start(sources, workers) as cluster:
            most_per_s = _predicted(profile, workers, callers=8)[0]
            for part in PARTS:
                rate_per_s = part * most_per_s
                per_s, p99_ms = _predicted(profile, workers, rate_per_s=rate_per_s)
                real = await cluster.open(rate_per_s, SECONDS)
                rows.append(
                    {
                        "setting": name,
                        "rate_per_s": rate_per_s,
                        "predicted_per_s": per_s,
                        "measured_per_s": real.per_s,
                        "predicted_p99_ms": p99_ms,
                        "measured_p99_ms": real.p99_ms,
                        "per_s_error": abs(per_s - real.per_s) / real.per_s,
                        "p99_error": abs(p99_ms - real.p99_ms) / real.p99_ms,
                    }
                )
                _print(rows[-1])
    return rows


def _predicted(
    profile: PipelineProfile, workers: Mapping[str, Workers], *, rate_per_s: float = 1.0, callers: int | None = None
) -> tuple[float, float]:
    found = predict(
        cluster_of(profile, workers, cores=profile.cores),
        load_of(profile, rate_per_s),
        lasts_s=SIMULATED_S,
        fronts_ms=profile.fronts_ms + profile.client_ms,
        callers=callers,
    )
    return found.per_s, found.p99_ms


def _print(row: Mapping[str, float | str]) -> None:
    print(
        f"{row['setting']:<36} at {row['rate_per_s']:5.1f}/s: images/s {row['predicted_per_s']:6.1f} predicted, "
        f"{row['measured_per_s']:6.1f} measured ({row['per_s_error']:4.0%}); p99 {row['predicted_p99_ms']:6.0f} ms, "
        f"{row['measured_p99_ms']:6.0f} ms ({row['p99_error']:4.0%})",
        flush=True,
    )


def main() -> int:
    """Compare, print, and say whether the bars are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="images")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    rows = asyncio.run(compare(arguments.sources))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    beyond = [row for row in rows if float(row["per_s_error"]) > PER_S_BAR or float(row["p99_error"]) > P99_BAR]
    print(f"{len(rows) - len(beyond)} of {len(rows)} points within {PER_S_BAR:.0%} (images/s) and {P99_BAR:.0%} (p99)")
    return int(bool(beyond))


if __name__ == "__main__":
    sys.exit(main())
