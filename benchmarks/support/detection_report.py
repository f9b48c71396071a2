"""What the detection benchmark found: figures by contestant, ratios by name with their bars, and the text of both."""

from __future__ import annotations

import math
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from sluiceway_runtime.cores import isa

__all__ = ["Report", "machine"]

PACKAGES = ("sluiceway", "openvino", "onnxruntime", "opencv-python-headless", "grpcio")


class Report:
    """Collects the rounds and judges what came of them."""

    def __init__(self, weights: str, cores: int) -> None:
        self.machine = ""
        self.versions = self.own_versions()
        self.lines: dict[str, dict[int, float]] = {}
        self._weights = weights
        self._cores = cores
        self._model: dict[str, Any] = {}
        self._rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._ratios: dict[str, dict[str, Any]] = {}

    def describe(self, model: dict[str, Any]) -> None:
        """What the servers compute."""
        self._model = model

    def add(self, name: str, run: dict[str, Any]) -> None:
        """One contestant's part of one round."""
        self._rounds[name].append(run)

    def line(self, name: str, processes: int, per_s: float) -> None:
        """One point of the chart."""
        self.lines.setdefault(name, {})[processes] = per_s

    def per_s(self, name: str) -> float:
        """Images a second, the median of the rounds."""
        return statistics.median(run["per_s"] for run in self._rounds[name])

    def took_ms(self, name: str) -> list[float]:
        """Of every image, of all rounds together."""
        return [took for run in self._rounds[name] for took in run["took_ms"]]

    def median_ms(self, name: str) -> float:
        """Of every image."""
        return statistics.median(self.took_ms(name))

    def spread(self, name: str) -> float:
        """The 99th percentile of every image's time over the median."""
        took_ms = self.took_ms(name)
        return _percentile(took_ms, 0.99) / _percentile(took_ms, 0.5)

    def best_round_ms(self, name: str) -> float:
        """Median of the fastest round."""
        return min(statistics.median(run["took_ms"]) for run in self._rounds[name])

    def best_round_per_s(self, name: str) -> float:
        """Images a second of the fastest round."""
        return max(run["per_s"] for run in self._rounds[name])

    def workers_used(self, name: str) -> int:
        """Worker processes that computed something in every round."""
        return min(sum(items > 0 for items in run["items"].values()) for run in self._rounds[name])

    def quotient(self, name: str, upper: str, lower: str, sign: str, least: float, *, divided_by: float = 1.0) -> None:
        """Images a second of one over those of another, round by round; the median counts."""
        rounds = [
            above["per_s"] / below["per_s"] / divided_by
            for above, below in zip(self._rounds[upper], self._rounds[lower], strict=True)
        ]
        spread = "rounds " + " ".join(f"{value:.2f}" for value in rounds)
        self.bar(name, statistics.median(rounds), sign, least, spread)

    def difference_ms(self, name: str, upper: str, lower: str, sign: str, least: float) -> None:
        """Median time of one less that of another, turn by turn; the median counts."""
        turns = [
            statistics.median(above["took_ms"]) - statistics.median(below["took_ms"])
            for above, below in zip(self._rounds[upper], self._rounds[lower], strict=True)
        ]
        spread = "turns " + " ".join(f"{value:.1f}" for value in turns)
        self.bar(name, statistics.median(turns), sign, least, spread)

    def bar(self, name: str, value: float, sign: str, least: float, note: str = "") -> None:
        """Judge one figure."""
        passed = value >= least if sign == ">=" else value <= least
        self._ratios[name] = {"value": round(value, 4), "bar": f"{sign} {least:g}", "passed": passed, "note": note}

    def missing(self, name: str, sign: str, least: float, why: str) -> None:
        """A figure that could not be had has not met its bar."""
        self._ratios[name] = {
            "value": None,
            "bar": f"{sign} {least:g}",
            "passed": False,
            "note": f"not measured: {why}",
        }

    @property
    def passed(self) -> bool:
        """Whether every bar was met."""
        return all(ratio["passed"] for ratio in self._ratios.values())

    def values(self) -> dict[str, Any]:
        """For machines."""
        figures = {
            name: {
                "per_s": round(self.per_s(name), 3),
                "per_s_of_rounds": [round(run["per_s"], 3) for run in runs],
                "p50_ms": round(_percentile(self.took_ms(name), 0.5), 2),
                "p99_ms": round(_percentile(self.took_ms(name), 0.99), 2),
                "images": len(self.took_ms(name)),
                "cpu_ms_per_image": _middle(run.get("cpu_ms_per_image") for run in runs),
                "regions": runs[0].get("regions"),
            }
            for name, runs in self._rounds.items()
        }
        return {
            "machine": self.machine,
            "cores": self._cores,
            "versions": self.versions,
            "weights": self._weights,
            "model": self._model,
            "figures": figures,
            "ratios": self._ratios,
            "passed": self.passed,
        }

    def text(self) -> str:
        """For people."""
        model = self._model
        rows = [
            f"{self._weights}, {model.get('backend')} {model.get('precision')} ({model.get('precision_reason')})",
            self.machine,
            self.versions,
            "",
            f"{'':<30}{'images/s':>9}{'p50 ms':>9}{'p99 ms':>9}   CPU ms an image: front, workers, client",
        ]
        for name, figure in self.values()["figures"].items():
            used = "".join(f"{value:>8.1f}" for value in figure["cpu_ms_per_image"].values())
            rows.append(f"{name:<30}{figure['per_s']:>9.2f}{figure['p50_ms']:>9.1f}{figure['p99_ms']:>9.1f}   {used}")
        rows += ["", f"{'ratio':<30}{'value':>9}{'bar':>9}"]
        for name, ratio in self._ratios.items():
            value = "-" if ratio["value"] is None else f"{ratio['value']:.3f}"
            verdict = "" if ratio["passed"] else "MISSED "
            rows.append(f"{name:<30}{value:>9}{ratio['bar']:>9}   {verdict}{ratio['note']}")
        return "\n".join([*rows, "", "every bar met" if self.passed else "NOT every bar met"])

    @staticmethod
    def own_versions() -> str:
        """Of what computes."""
        found = [f"Python {platform.python_version()}"]
        for package in PACKAGES:
            try:
                found.append(f"{package.removesuffix('-python-headless')} {metadata.version(package)}")
            except metadata.PackageNotFoundError:
                continue
        return ", ".join(found)


def _percentile(values: Iterable[float], part: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def machine(cores: int) -> str:
    """Processor, cores and the instruction sets that decide on arithmetic."""
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    fast = [each for each in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2") if each in isa()]
    return f"{cores} cores, {name} ({', '.join(fast)}), Linux {platform.release()}"


def _middle(parts: Iterable[dict[str, float] | None]) -> dict[str, float]:
    known = [part for part in parts if part]
    return {key: round(statistics.median(part[key] for part in known), 2) for key in (known[0] if known else ())}
