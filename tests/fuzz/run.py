"""Fuzzing in bulk: `make fuzz`. A finding is written to a file that repeats it, and the exit code is 1."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzz_targets import Finding, fuzz_decoding, fuzz_functions


def main() -> int:
    """Run, print what was done, and say by exit code whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000, help="in all")
    parser.add_argument(
        "--decodes", type=int, default=120_000, help="of them: pictures and pages decoded in real workers"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed gives the same inputs")
    parser.add_argument("--findings", type=Path, default=Path("out/fuzz"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    started_s = time.monotonic()
    try:
        ends = asyncio.run(fuzz_decoding(arguments.seed, arguments.decodes))
        print(f"{ends.total():>9} pictures and pages decoded in workers: {dict(ends)}; no worker died", flush=True)
        rest = arguments.executions - ends.total()
        done = fuzz_functions(arguments.seed, rest, lambda name, count: print(f"{count:>9} {name}", flush=True))
    except Finding as finding:
        print(f"FOUND {finding}\nkept as {finding.save(arguments.findings)}")
        return 1
    print(f"{done + ends.total()} executions in {time.monotonic() - started_s:.0f} s, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
