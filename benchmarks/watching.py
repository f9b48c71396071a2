"""What metrics and logs cost: the orchestrator's CPU time an image with them, beside the same process without.

    python benchmarks/watching.py [--seconds 45] [--json FILE]

One orchestrator stands on a core of its own between stages that answer at once, under steady load, and switches its
metrics and log off and on again four times a second (`support/switched.py`). Of each pair of neighbouring turns the
ratio counts, and of all ratios the mean with its upper 95% bound. One image is a file of 100 kB, 16 crops, 16 texts.

Exits 1 if the bound is above its bar.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from ports import free_ports

from orchestrator import IN_FLIGHT, process, throughput, wait_until_served

BAR = 1.02
# One-sided 95% point of Student's t, for at least forty pairs.
T_95, LEAST_PAIRS = 1.69, 40
HERE = Path(__file__).parent
# A turn in which less was done lies before or after the load.
LEAST_PART = 0.5


def measured(stages: list[str], seconds: float, core: int) -> list[tuple[bool, float, int]]:
    """Turns of an orchestrator under load: whether metrics were on, CPU seconds, images."""
    # Told beforehand, as its log is off half of the time.
    [port] = free_ports(1)
    settings = {"port": port, "operations_port": 0, "detection": stages[0], "recognition": stages[1]}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "turns.json"
        started = subprocess.Popen(
            [sys.executable, "-m", "support.switched", str(notes), "orchestrator", *options],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "SLUICEWAY_ORCHESTRATOR__HTTP__ENABLED": "false"},
            stderr=subprocess.DEVNULL,
        )
        try:
            os.sched_setaffinity(started.pid, {core})
            asyncio.run(wait_until_served(f"127.0.0.1:{port}"))
            asyncio.run(throughput(f"127.0.0.1:{port}", seconds, IN_FLIGHT))
        finally:
            started.terminate()
            started.wait()
        return [(on, cpu_s, done) for on, cpu_s, done in json.loads(notes.read_text())]


def ratios(turns: list[tuple[bool, float, int]]) -> list[float]:
    """CPU time an image with over without, of each two neighbouring turns; every turn is part of one pair."""
    usual = statistics.median(done for _, _, done in turns)
    found = []
    for first, second in zip(turns[::2], turns[1::2], strict=False):
        if min(first[2], second[2]) >= LEAST_PART * usual:
            cost = {on: cpu_s / done for on, cpu_s, done in (first, second)}
            found.append(cost[True] / cost[False])
    return found


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    own, other = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {other})
    with ExitStack() as stack:
        stages = [stack.enter_context(process("--role", kind, core=other))[1] for kind in ("detection", "recognition")]
        turns = measured(stages, arguments.seconds, own)
    pairs = ratios(turns)
    if len(pairs) < LEAST_PAIRS:
        print(f"only {len(pairs)} pairs: give it more --seconds")
        return 1
    mean = statistics.mean(pairs)
    bound = mean + T_95 * statistics.stdev(pairs) / math.sqrt(len(pairs))
    costs = {on: sum(turn[1] for turn in turns if turn[0] is on) for on in (True, False)}
    images = {on: sum(turn[2] for turn in turns if turn[0] is on) for on in (True, False)}
    for on, word in ((True, "with"), (False, "without")):
        print(f"{word} metrics and logs: {costs[on] * 1000 / images[on]:.3f} ms of CPU an image, {images[on]} images")
    print(f"of {len(pairs)} pairs the mean ratio is {mean:.4f}, with 95% certainty below {bound:.4f}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"mean": mean, "upper_bound": bound, "bar": BAR}) + "\n")
    if bound > BAR:
        print(f"above the bar of {BAR}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
