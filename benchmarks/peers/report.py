"""What was found, for people: a table, pictures, and the part of the documentation that shows them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.pictures import draw
from benchmarks.support.performance_rows import filled

__all__ = ["draw", "line", "machine", "rows", "show"]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "docs" / "performance.md", ROOT / "README.md")
PICTURES = {"cpu": ROOT / "docs" / "peers-cpu.svg", "gpu": ROOT / "docs" / "peers-gpu.svg"}


def machine() -> dict[str, Any]:
    """What this machine is, and what ran on it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    versions = {}
    for name in ("sluiceway", "openvino", "opencv-python-headless", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model or platform.machine(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip().splitlines()[0] if found.returncode == 0 and found.stdout.strip() else ""


def line(stint: Mapping[str, Any]) -> str:
    """One start in one line."""
    best = max(stint["closed"], key=lambda part: part["answered_per_s"])
    f1 = f"  word F1 {stint['word_f1']:.3f}" if stint.get("word_f1") is not None else ""
    return (
        f"{stint['name']:<22}{stint['workers']:>4} workers{best['callers']:>5} callers "
        f"{best['answered_per_s']:>8.2f} images/s  p50 {best['p50_ms']:>8.1f} ms  p99 {best['p99_ms']:>8.1f} ms  "
        f"{stint['memory_mb']:>6.0f} MB{f1}"
    )


def full(stint: Mapping[str, Any]) -> str:
    """The processes that were fullest at its best, in a line; empty for stints that did not watch them."""
    best = max(stint["closed"], key=lambda part: part["answered_per_s"])
    fullest = sorted(best.get("full", {}).items(), key=lambda item: -item[1])[:6]
    return ", ".join(f"{name} {share:.0%}" for name, share in fullest)


def show(found: Mapping[str, Any]) -> None:
    """All of it on a terminal."""
    for stint in found["stints"]:
        print(line(stint))
        if who := full(stint):
            print(f"    of a core: {who}")
        for part in stint["open"]:
            others = {kind: count for kind, count in part["outcomes"].items() if kind != "ok"}
            print(
                f"    {part['factor']:g} x: {part['answered_per_s']:.1f} of {part['offered_per_s']:.1f} a second in "
                f"time, p50 {part['p50_ms']:.0f} ms, p99 {part['p99_ms']:.0f} ms{f', {others}' if others else ''}"
            )
        if step := stint["step"]:
            windows = ", ".join(f"{rate:.1f}" for rate in step["goodput_per_s"])
            print(
                f"    step to 3 x: {windows} a second in windows of {step['window_s']:.1f} s; accepted p99 "
                f"{step['accepted_ms'][1]:.0f} ms; refused within {step['refused_ms'][2]:.0f} ms; {step['outcomes']}"
            )
    for name, share in found["equal_texts"].items():
        print(f"{name}: {share:.1%} of the texts are ours")
    for name, ratio in found["ratios"].items():
        print(f"{name} = {ratio:.3f}")
    for name, why in found["failed"].items():
        print(f"{name} is not there: {why.strip().splitlines()[-1][:200]}")
    for fault in found["faults"]:
        print(fault)


def rows(found: Mapping[str, Any]) -> list[str]:
    """The part of a document about one run."""
    where = found["machine"]
    machine_of = ", ".join(filter(None, [where["gpu"], f"{where['cores']} cores", where["processor"]]))
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    judged = "" if found["judged"] else (
        f" **The machine was too busy to judge by**: others had {found['busy']:.0%} of its cores."
    )  # fmt: skip
    what = (
        f"Measured on {machine_of}; Python {where['python']}, {versions}. Frameworks compute {found['detector']} and "
        f"{found['recogniser']}, OCR servers what they come with.{judged}"
    )
    lines = [
        what,
        "",
        "| | workers | images/s | p50 | p99 | memory | word F1 | behind the step to 3 x: worst window of capacity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shares = _shares(found)
    for stint in found["stints"]:
        best = max(stint["closed"], key=lambda part: part["answered_per_s"])
        f1 = f"{stint['word_f1']:.3f}" if stint.get("word_f1") is not None else ""
        share = f"{shares[stint['name']]:.2f}" if stint["step"] and stint["name"] in shares else ""
        lines.append(
            f"| {found['titles'][stint['name']]} | {stint['workers']} | {best['answered_per_s']:.1f} | "
            f"{best['p50_ms']:.0f} ms | {best['p99_ms']:.0f} ms | {stint['memory_mb']:,.0f} MB | {f1} | {share} |"
        )
    lines += ["", "| bar | measured | must be | |", "|---|---|---|---|"]
    for bar in found["bars"]:
        word = {True: "passed", False: "**failed**", None: "not measured"}[bar["passed"]]
        value = "" if bar["value"] is None else f"{bar['value']:.3g}"
        lines.append(f"| `{bar['name']}` | {value} | {bar['must_be']} | {word} |")
    if found["failed"]:
        lines += [
            "",
            *(
                f"- {found['titles'][name]} is not there: `{why.strip().splitlines()[-1][:160]}`"
                for name, why in found["failed"].items()
            ),
        ]
    return lines


def summary(found: Mapping[str, Any]) -> list[str]:
    """The same for the README, in one table of ratios."""
    where = found["machine"]
    machine_of = ", ".join(filter(None, [where["gpu"], f"{where['cores']} cores", where["processor"]]))
    names = [name for name in found["ratios"] if name.startswith("sluiceway_to_") and "workers" not in name]
    lines = [f"Throughput beside theirs, {machine_of}, one run:", "", "| | ours / theirs |", "|---|---|"]
    titles = {f"sluiceway_to_{name.replace(' ', '_')}": title for name, title in found["titles"].items()}
    return lines + [f"| {titles[name]} | {found['ratios'][name]:.2f} |" for name in names if name in titles]


def _shares(found: Mapping[str, Any]) -> dict[str, float]:
    shares = {}
    for stint in found["stints"]:
        if stint["step"] and stint["name"] not in shares:
            best = max(part["answered_per_s"] for part in stint["closed"])
            capacity = (best + stint["after_per_s"]) / 2
            shares[stint["name"]] = min(stint["step"]["goodput_per_s"]) / capacity if capacity else 0.0
    return shares


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the figures of runs into docs/performance.md and README.md, between their marks, and the pictures beside."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="what run.py --json wrote")
    for path in parser.parse_args(arguments).results:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = "gpu" if found["machine"]["gpu"] else "cpu"
        draw(found, PICTURES[kind])
        for document, lines in zip(DOCUMENTS, (rows(found), summary(found)), strict=True):
            text = document.read_text(encoding="utf-8")
            document.write_text(filled(text, f"peers-{kind}", lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
