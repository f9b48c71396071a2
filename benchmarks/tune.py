"""What `sluiceway tune` recommends beside the best of every setting, and beside the configuration as it is.

    python benchmarks/tune.py SOURCE... [--json FILE]

`sluiceway tune --max-throughput` runs first, and is timed. Then each setting of the sweep is run for SECONDS, with the
callers that tune proves its own with. The best of them has had luck too, so it, what was recommended and the defaults
are run again in turns, and their medians are compared.

The bars: at least 0.9 of the best, in at most five minutes. Exits 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prediction import start
from sluiceway_cluster.tuning.measuring import machine_cores
from sluiceway_simulation.profiles.model import Workers

SECONDS = 6.0
TURNS = 3
# Of detection and of recognition: workers, and threads of each.
WORKERS = ((1, 2, 3), (1, 2))
THREADS = (1, 2)
OF_BEST_BAR, TUNE_BAR_S = 0.9, 300.0
Setting = Mapping[str, Workers]


def tuned(sources: list[str]) -> tuple[Setting, float]:
    """What is recommended, and how long that took."""
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sluiceway")), "tune", *sources, "--json", "--to", folder],
            stdout=subprocess.PIPE,
            check=True,
            env=os.environ,
        )
    found = json.loads(done.stdout)["setting"]
    return {kind: Workers(its["workers"], its["threads"]) for kind, its in found.items()}, time.monotonic() - begun_s


def settings() -> list[Setting]:
    """Every setting of the sweep: with two cores, 24."""
    cores = len(machine_cores()[0])
    scale = max(1, cores // 2)
    stages = [
        [Workers(count * scale, threads) for count in counts for threads in THREADS if threads <= cores]
        for counts in WORKERS
    ]
    return [{"detection": first, "recognition": second} for first, second in itertools.product(*stages)]


async def per_s(sources: list[str], setting: Setting | None, callers: int) -> float:
    """Images a second of a setting; None is the configuration as it is."""
    async with start(sources, setting) as cluster:
        return (await cluster.closed(callers, SECONDS)).per_s


async def compare(sources: list[str], recommended: Setting) -> dict[str, Any]:
    """Sweep, then run the best, what was recommended and the defaults in turns."""
    callers = 2 * sum(its.workers for its in recommended.values())
    sweep: list[tuple[float, Setting]] = []
    for setting in settings():
        sweep.append((await per_s(sources, setting, callers), setting))
        print(f"{_name(setting):<40} {sweep[-1][0]:6.1f} images/s", flush=True)
    best = max(sweep, key=lambda point: point[0])[1]
    turns: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for which, of in (("best", best), ("recommended", recommended), ("defaults", None)):
            turns.setdefault(which, []).append(await per_s(sources, of, callers))
    medians = {which: statistics.median(found) for which, found in turns.items()}
    return {
        "recommended": _name(recommended),
        "best": _name(best),
        "points": [{"setting": _name(setting), "per_s": found} for found, setting in sweep],
        "turns": turns,
        "of_best": medians["recommended"] / medians["best"],
        "of_defaults": medians["recommended"] / medians["defaults"],
    }


def _name(setting: Setting | None) -> str:
    if setting is None:
        return "the defaults"
    return ", ".join(f"{kind} {its.workers} x {its.threads}" for kind, its in setting.items())


def main() -> int:
    """Tune, sweep, compare, and say whether the bars are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="images")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    recommended, took_s = tuned(arguments.sources)
    print(f"tune: {_name(recommended)}, in {took_s:.0f} s", flush=True)
    figures = {"tune_s": took_s, **asyncio.run(compare(arguments.sources, recommended))}
    print(f"best: {figures['best']}; in turns {figures['turns']}")
    print(f"recommended: {figures['of_best']:.2f} of the best, {figures['of_defaults']:.2f} of the defaults")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(figures["of_best"] < OF_BEST_BAR or took_s > TUNE_BAR_S)


if __name__ == "__main__":
    sys.exit(main())
