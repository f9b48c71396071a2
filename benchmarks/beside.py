"""This checkout beside another one, in turns on the same machine: has something become slower?

    python benchmarks/beside.py --other PATH [--pairs 7] [orchestrator client overhead ...]

Each benchmark runs in both checkouts, one after the other and the other way round in the next pair, with this
environment's libraries and each checkout's own code. What counts is the median of the ratios of the pairs; their spread
is printed beside it. Ratios above 1 are in favour of this checkout.

Exits 1 if a median is below the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
ROOTS = (".", "services", "orchestrator", "cluster")
LEAST = 0.95


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: how it is run for a pair, and the figures that count, all of them the more the better."""

    arguments: Sequence[str]
    figures: Callable[[Any], Mapping[str, float]]


BENCHMARKS = {
    "orchestrator": Benchmark(
        ("--seconds", "2", "--rounds", "2"),
        lambda found: {"images_per_s": found["figures"]["images_per_s"]},
    ),
    "client": Benchmark(
        ("--rounds", "600"),
        lambda found: {
            "library_images_per_s": found["library_images_per_s"],
            "library_per_ms": 1 / (found["bare_ms"] + found["added_ms"]),
        },
    ),
    "detection": Benchmark(
        ("--quick", "--without-naive", "--without-quota"),
        lambda found: {
            "images_per_s": max(row["per_s"] for name, row in found["figures"].items() if "in flight" in name),
            "per_ms": 1 / found["figures"]["served, one at a time"]["p50_ms"],
        },
    ),
    "wire": Benchmark(
        ("--seconds", "6"),
        lambda found: {"crops_per_s": found["crops_per_s"], "per_front_us": 1 / found["front_us"]},
    ),
    "overhead": Benchmark(
        ("--rounds", "12"),
        lambda found: {f"per_ms {name}": 1 / row["cluster_ms"] for name, row in found["images"].items()},
    ),
}


def measure(name: str, checkout: Path) -> Mapping[str, float]:
    """Run a benchmark in a checkout; its own bars do not matter here."""
    benchmark = BENCHMARKS[name]
    roots = [str(checkout / root) for root in ROOTS if (checkout / root).is_dir()]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(checkout / "benchmarks" / f"{name}.py"), *benchmark.arguments]
        done = subprocess.run(
            [*command, "--json", str(result)],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(roots)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not result.is_file():
            raise SystemExit(f"{name} in {checkout} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return benchmark.figures(json.loads(result.read_text(encoding="utf-8")))


def compare(name: str, other: Path, pairs: int) -> dict[str, list[float]]:
    """Ratios of the figures, this checkout over the other, pair by pair."""
    ratios: dict[str, list[float]] = {}
    for pair in range(pairs):
        order = (HERE, other) if pair % 2 else (other, HERE)
        found = {checkout: measure(name, checkout) for checkout in order}
        for figure, value in found[HERE].items():
            ratios.setdefault(figure, []).append(value / found[other][figure])
        latest = ", ".join(f"{figure} {values[-1]:.3f}" for figure, values in ratios.items())
        print(f"{name} {pair + 1}/{pairs}: {latest}", flush=True)
    return ratios


def main() -> int:
    """Compare, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"of {', '.join(BENCHMARKS)}; by default all")
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path, default=Path("out/bench-beside.json"))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    results = {}
    for name in arguments.names or BENCHMARKS:
        for figure, ratios in compare(name, arguments.other.resolve(), arguments.pairs).items():
            results[f"{name} {figure}"] = {
                "median": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "pairs": ratios
            }  # fmt: skip
    for name, row in results.items():
        print(f"{name:<40}{row['median']:7.3f}   {row['least']:.3f} to {row['most']:.3f}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"ratios": results, "bar": LEAST}, indent=1), encoding="utf-8")
    slower = [name for name, row in results.items() if float(row["median"]) < LEAST]
    for name in slower:
        print(f"{name}: below {LEAST}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
