"""`python -m sluiceway_simulation.torture`: run many seeds, and show what the first that fail have in them."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable

from sluiceway_simulation.torture.seeds import one, prepare
from sluiceway_simulation.torture.shrink import shrink
from sluiceway_simulation.torture.swarm import draw
from sluiceway_simulation.torture.trial import Verdict, run

# Of a failing seed, so many lines at the end of its story.
SHOWN_LINES = 60


def main() -> int:
    """Run, report, and return how many seeds failed, at most 1."""
    parser = argparse.ArgumentParser(description="Torture a simulated cluster by seed.")
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--show", type=int, default=1, help="failing seeds to make small and show")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    begun_s = time.monotonic()
    prepare()
    if arguments.jobs > 1:
        with multiprocessing.get_context("spawn").Pool(arguments.jobs, prepare) as pool:
            verdicts = _followed(pool.imap_unordered(one, seeds, chunksize=8), len(seeds))
    else:
        verdicts = _followed(map(one, seeds), len(seeds))
    took_s = time.monotonic() - begun_s
    events = sum(verdict.events for verdict in verdicts)
    simulated_s = sum(verdict.simulated_s for verdict in verdicts)
    outcomes: Counter[str] = Counter()
    for verdict in verdicts:
        outcomes.update(verdict.outcomes)
    print(f"{len(verdicts)} seeds, {events} events, {simulated_s:.0f} s simulated in {took_s:.0f} s")
    print("jobs: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    failed = sorted((verdict for verdict in verdicts if verdict.wrong), key=lambda verdict: verdict.seed)
    for verdict in failed:
        more = f" (and {len(verdict.wrong) - 1} more)" if len(verdict.wrong) > 1 else ""
        print(f"seed {verdict.seed}: {verdict.wrong[0]}{more}")
    for verdict in failed[: arguments.show]:
        _show(verdict.seed)
    print(f"{len(failed)} of {len(verdicts)} seeds failed")
    return int(bool(failed))


def _followed(verdicts: Iterable[Verdict], count: int) -> list[Verdict]:
    found = []
    for verdict in verdicts:
        found.append(verdict)
        if verdict.wrong:
            print(f"seed {verdict.seed}: {verdict.wrong[0]}", flush=True)
        if sys.stderr.isatty() or len(found) % 500 == 0:
            failed = sum(bool(other.wrong) for other in found)
            print(
                f"{len(found)} of {count}, {failed} failed", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr
            )
    return found


def _show(seed: int) -> None:
    trial = shrink(draw(seed))
    verdict = run(trial)
    print(f"\nseed {seed}, made small: {len(trial.jobs)} jobs, faults {[str(fault) for fault in trial.faults]}")
    print(f"{trial.cluster}\n")
    for line in verdict.story[-SHOWN_LINES:]:
        print(line)
    for wrong in verdict.wrong:
        print(f"WRONG: {wrong}")


if __name__ == "__main__":
    sys.exit(main())
