"""From what was seen of all contestants to named ratios, faults, and a verdict. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BUSY", "Bar", "Figures", "equal_share"]

OURS, OURS_BOUNDED, OURS_OCR, DOCUMENTED = "sluiceway", "sluiceway bounded", "sluiceway defaults", "litserve"
# Above this share of the cores in other processes' hands, nothing can be judged.
BUSY = 0.15
# Of the texts of all images, as bags. Tuned peers have our engines; other engines round differently, and letterbox.
LEAST_EQUAL, LEAST_EQUAL_DOCUMENTED = 0.95, 0.8
REACHED = 0.95

Texts = Sequence[Sequence[str]]
# One stint as JSON has it: what `Stint.to_dict` gives, with name, workers, usual, busy and, of OCR engines, word_f1.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A ratio and what it must be; `value` is None where it was not measured."""

    name: str
    value: float | None
    must_be: str
    passed: bool | None


def equal_share(ours: Texts, theirs: Texts) -> float:
    """How much of what both read is the same, as bags of texts: 2 * common / all; 1 where neither reads anything."""
    common = sum(sum((Counter(mine) & Counter(other)).values()) for mine, other in zip(ours, theirs, strict=True))
    total = sum(map(len, ours)) + sum(map(len, theirs))
    return 2 * common / total if total else 1.0


@dataclass(frozen=True)
class Figures:
    """All stints of one run.

    Attributes:
        stints: as they were kept.
        titles: by name of contestant.
        ocr: names of those with pipelines of their own, ours among them.
        tuned: names of peers that are as good as we can make them.
        on_gpu: whether the bars are those of the machine with a GPU.
        failed: why contestants did not start, by name: told, and no fault as long as others of their kind did.
        complete: whether all were to be measured: then a bar without a figure is a fault.
    """

    stints: Sequence[Row]
    titles: Mapping[str, str]
    ocr: frozenset[str]
    tuned: frozenset[str]
    on_gpu: bool
    failed: Mapping[str, str]
    complete: bool

    @property
    def names(self) -> list[str]:
        """Those that were measured."""
        return list(dict.fromkeys(row["name"] for row in self.stints))

    @property
    def busy(self) -> float:
        """The largest share of the cores that others had just before a contestant started, or while it was measured."""
        return max((row["busy"] for row in self.stints), default=0.0)

    @property
    def judged(self) -> bool:
        """Whether the machine was quiet enough."""
        return self.busy <= BUSY

    def best_per_s(self, name: str, workers: int | None = None) -> float:
        """The best rate of a contestant, of any number of workers or of one; the median where it came several times."""
        by_workers: dict[int, list[float]] = {}
        for row in self._rows(name):
            by_workers.setdefault(row["workers"], []).append(max(part["answered_per_s"] for part in row["closed"]))
        found = [statistics.median(rates) for count, rates in by_workers.items() if workers in (None, count)]
        return max(found, default=0.0)

    def whole(self, name: str) -> Row | None:
        """The stint of a contestant in which everything was measured."""
        return next((row for row in self._rows(name) if row["step"] is not None), None)

    def step_share(self, name: str) -> float | None:
        """The worst window behind the step, as a share of the capacity before and after."""
        row = self.whole(name)
        if row is None:
            return None
        capacity = (max(part["answered_per_s"] for part in row["closed"]) + row["after_per_s"]) / 2
        return min(row["step"]["goodput_per_s"]) / capacity if capacity else 0.0

    def accepted_share(self, name: str) -> float | None:
        """p99 of what was answered behind the step, over that of the least callers that reach the capacity."""
        row = self.whole(name)
        if row is None:
            return None
        capacity = max(part["answered_per_s"] for part in row["closed"])
        least = next(part for part in row["closed"] if part["answered_per_s"] >= REACHED * capacity)
        return row["step"]["accepted_ms"][1] / least["p99_ms"] if least["p99_ms"] else None

    def overload_p99_ms(self, name: str) -> float | None:
        """p99 at one and a half times the capacity. What times out never came, so no percentile above it exists."""
        row = self.whole(name)
        part = next((part for part in row["open"] if part["factor"] == 1.5), None) if row else None
        if part is None:
            return None
        late = part["outcomes"].get("timed out", 0)
        answered = part["outcomes"].get("ok", 0)
        return float("inf") if late > 0.01 * max(1, late + answered) else part["p99_ms"]

    def ratios(self) -> dict[str, float]:
        """By name, ours over theirs."""
        found: dict[str, float] = {}
        ours = self.best_per_s(OURS)
        peers = [name for name in self.names if name not in self.ocr and name not in (OURS, OURS_BOUNDED)]
        for name in peers:
            if theirs := self.best_per_s(name):
                found[f"sluiceway_to_{_key(name)}"] = ours / theirs
        tuned = [self.best_per_s(name) for name in peers if name in self.tuned]
        if any(tuned):
            found["sluiceway_to_best_tuned"] = ours / max(tuned)
        found |= self._crowded(peers)
        documented = [self.best_per_s(name) for name in peers if name not in self.tuned and name.startswith(DOCUMENTED)]
        if any(documented):
            found["sluiceway_to_litserve_as_documented"] = ours / max(documented)
        engines = [self.best_per_s(name) for name in self.names if name in self.ocr and name != OURS_OCR]
        if any(engines):
            found["defaults_to_best_ocr"] = self.best_per_s(OURS_OCR) / max(engines)
            found["defaults_word_f1_less_best_ocr"] = self._f1(OURS_OCR) - max(
                self._f1(name) for name in self.names if name in self.ocr and name != OURS_OCR
            )
        found |= self._overload(peers)
        return found

    def _crowded(self, peers: Sequence[str]) -> dict[str, float]:
        """With four times the usual workers."""
        usual = {row["name"]: row["workers"] for row in self.stints if row["usual"]}
        theirs = [self.best_per_s(name, 4 * usual[name]) for name in peers if name in self.tuned and name in usual]
        ours = self.best_per_s(OURS, 4 * usual[OURS]) if OURS in usual else 0.0
        return {"sluiceway_to_best_tuned_at_4_times_the_workers": ours / max(theirs)} if ours and any(theirs) else {}

    def _overload(self, peers: Sequence[str]) -> dict[str, float]:
        """Of ours where it is told what whoever asks can wait; peers have no such setting but a length of queue."""
        found: dict[str, float] = {}
        row = self.whole(OURS_BOUNDED)
        if row is None:
            return found
        shares = {name: share for name in [OURS_BOUNDED, *peers] if (share := self.step_share(name)) is not None}
        found["step_goodput_of_capacity"] = shares.pop(OURS_BOUNDED)
        if shares:
            found["step_goodput_of_capacity_best_peer"] = max(shares.values())
        found["step_refusal_slowest_ms"] = row["step"]["refused_ms"][2]
        if (accepted := self.accepted_share(OURS_BOUNDED)) is not None:
            found["step_accepted_p99_to_closed_p99"] = accepted
        late = [value for name in peers if (value := self.overload_p99_ms(name)) is not None]
        mine = self.overload_p99_ms(OURS_BOUNDED)
        if late and mine is not None:
            found["overload_p99_to_best_peer"] = mine / min(late) if min(late) else float("inf")
        return found

    def bars(self) -> list[Bar]:
        """What the ratios must be on this kind of machine."""
        least = {"step_goodput_of_capacity": 0.93, "sluiceway_to_best_tuned": 1.0}
        most = {"step_accepted_p99_to_closed_p99": 1.5, "step_refusal_slowest_ms": 50.0}
        if self.on_gpu:
            least |= {
                "sluiceway_to_litserve_as_documented": 8.0,
                "sluiceway_to_best_tuned_at_4_times_the_workers": 3.0,
            }
            most |= {"overload_p99_to_best_peer": 1.0}
        else:
            least |= {
                "sluiceway_to_litserve_as_documented": 2.2,
                "defaults_to_best_ocr": 1.5,
                "defaults_word_f1_less_best_ocr": 0.0,
            }
        found = self.ratios()
        return [
            *(_bar(name, found.get(name), f">= {bar:g}", bar <= found.get(name, bar)) for name, bar in least.items()),
            *(_bar(name, found.get(name), f"<= {bar:g}", found.get(name, bar) <= bar) for name, bar in most.items()),
        ]

    def faults(self) -> list[str]:
        """What keeps it from having passed."""
        found = [f"{bar.name} = {bar.value:.3g} must be {bar.must_be}" for bar in self.bars() if bar.passed is False]
        if self.complete:
            found += [f"{bar.name} was not measured" for bar in self.bars() if bar.passed is None]
        for name, share in self.equal().items():
            least = LEAST_EQUAL if name in self.tuned else LEAST_EQUAL_DOCUMENTED
            if share < least:
                found.append(f"{name} reads something else: {share:.1%} of the texts are ours, so rates do not compare")
        for name in self.names:
            count = sum(part["failed"] for row in self._rows(name) if row["usual"] for part in row["closed"])
            if count:
                found.append(f"{name} failed {count} requests of callers that wait")
        return found

    def equal(self) -> dict[str, float]:
        """How much of what each framework reads is what we read."""
        ours = next((row["texts"] for row in self._rows(OURS)), None)
        if ours is None:
            return {}
        return {
            name: min(equal_share(ours, row["texts"]) for row in self._rows(name))
            for name in self.names
            if name != OURS and name not in self.ocr
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ratios": self.ratios(),
            "bars": [bar.__dict__ for bar in self.bars()],
            "equal_texts": self.equal(),
            "busy": self.busy,
            "judged": self.judged,
            "faults": self.faults(),
            "failed": dict(self.failed),
            "titles": dict(self.titles),
            "stints": list(self.stints),
        }

    def _rows(self, name: str) -> list[Row]:
        return [row for row in self.stints if row["name"] == name]

    def _f1(self, name: str) -> float:
        return max((row["word_f1"] for row in self._rows(name) if row.get("word_f1") is not None), default=0.0)


def _bar(name: str, value: float | None, must_be: str, holds: bool) -> Bar:
    return Bar(name, value, must_be, None if value is None else holds)


def _key(name: str) -> str:
    return name.replace(" ", "_")
