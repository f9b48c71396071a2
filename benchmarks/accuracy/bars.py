"""What `make accuracy` has to show. Pure."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["OURS", "PAIRS", "STRONG", "Bar", "faults", "judge", "ratios"]

OURS, SMALL, NANO, TURBO, RAPID, EARLIER = (
    "sluiceway", "sluiceway-small", "sluiceway-text-nano", "turboocr", "rapidocr", "earlier",
)  # fmt: skip
PAIRS: Final = ((OURS, TURBO), (SMALL, RAPID), (OURS, RAPID), (NANO, EARLIER))
# Where the detector of words was good from the beginning.
STRONG = ("letters-skewed", "forms", "shelf-labels")
LEAST_MEDIAN_IOU, LEAST_SHARE_ABOVE_60 = 0.8, 0.95
# Of the classes in which two readers differ.
LEAST_SHARE_AHEAD = 0.5
_COMPARE: Final = {">=": operator.ge, ">": operator.gt}

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A figure by name and what it must reach."""

    name: str
    value: float
    compare: str
    limit: float

    @property
    def passed(self) -> bool:
        """Whether it does."""
        return bool(_COMPARE[self.compare](self.value, self.limit))


def judge(results: Results) -> list[Bar]:
    """All bars for which there are figures.

    "Not below" means that the 95% interval of the difference, ours less theirs, does not lie below zero as a whole.

    Args:
        results: as `__main__` writes them.
    """
    return [*_pages(results), *_peers(results), *_earlier(results)]


def _pages(results: Results) -> Iterator[Bar]:
    for name, found in results["classes"].items():
        ours = found["readers"].get(OURS)
        if ours is None:
            continue
        if found["least_f"] is not None:
            yield Bar(f"f.{name}", ours["f"]["value"], ">=", found["least_f"])
        if found["least_neighbours"] is not None:
            yield Bar(f"neighbours.{name}", ours["neighbours"], ">=", found["least_neighbours"])
        if boxes := found.get("boxes"):
            yield Bar(f"boxes_median_iou.{name}", boxes["median"], ">=", LEAST_MEDIAN_IOU)
            yield Bar(f"boxes_share_above_60.{name}", boxes["share_above_60"], ">=", LEAST_SHARE_ABOVE_60)


def _peers(results: Results) -> Iterator[Bar]:
    for ours, theirs in ((OURS, TURBO), (SMALL, RAPID)):
        ahead = behind = 0
        for name, found in results["classes"].items():
            if found["small_only"] and ours == OURS:
                continue
            between = found["differences"].get(f"{ours}-{theirs}")
            if between is None:
                continue
            yield Bar(f"not_below.{ours}_{theirs}.{name}", between["high"], ">=", 0.0)
            ahead += between["value"] > 0
            behind += between["value"] < 0
        if ahead or behind:
            yield Bar(f"share_ahead.{ours}_{theirs}", ahead / (ahead + behind), ">", LEAST_SHARE_AHEAD)


def _earlier(results: Results) -> Iterator[Bar]:
    for name in STRONG:
        found = results["classes"].get(name)
        if found is None or NANO not in found["readers"]:
            continue
        if between := found["differences"].get(f"{NANO}-{EARLIER}"):
            yield Bar(f"not_below.{NANO}_{EARLIER}.{name}", between["high"], ">=", 0.0)


def ratios(results: Results) -> dict[str, float]:
    """F of ours over F of theirs, and CPU of ours over CPU of theirs, by class."""
    made: dict[str, float] = {}
    for name, found in results["classes"].items():
        for ours, theirs in PAIRS:
            if ours not in found["readers"] or theirs not in found["readers"]:
                continue
            mine, other = found["readers"][ours], found["readers"][theirs]
            if other["f"]["value"]:
                made[f"f.{ours}_to_{theirs}.{name}"] = mine["f"]["value"] / other["f"]["value"]
            if mine["cpu_s"] and other["cpu_s"]:
                made[f"cpu.{ours}_to_{theirs}.{name}"] = mine["cpu_s"] / other["cpu_s"]
    return made


def faults(bars: list[Bar]) -> list[str]:
    """Those that are missed, in words."""
    return [f"{bar.name} = {bar.value:.4f} is not {bar.compare} {bar.limit:g}" for bar in bars if not bar.passed]
