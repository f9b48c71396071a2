"""What rows of figures say of the contestants. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["OURS", "Comparison", "Row", "equal_share"]

OURS = "sluiceway"
# Our best rate, at least so many times that of the best peer.
BAR = 1.0
# Of the texts of all images, as bags: engines of two versions round differently.
LEAST_EQUAL = 0.95
# Above this share of the cores in other processes' hands, nothing can be judged.
BUSY = 0.15

Texts = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Row:
    """One contestant with so many callers in one round."""

    name: str
    callers: int
    answered_per_s: float
    failed: int
    p50_ms: float
    p99_ms: float
    memory_mb: float


@dataclass(frozen=True)
class Comparison:
    """All that was seen.

    Attributes:
        rows: of every round.
        texts: by contestant, what it reads in each image.
        busy: the largest share of the cores that others had just before a contestant started.
    """

    rows: Sequence[Row]
    texts: Mapping[str, Texts]
    busy: float

    @property
    def best_per_s(self) -> dict[str, float]:
        """By contestant."""
        return {name: max(row.answered_per_s for row in self.rows if row.name == name) for name in self.texts}

    @property
    def ratios(self) -> dict[str, float]:
        """Our best rate over that of each peer."""
        best = self.best_per_s
        return {
            f"{OURS}_to_{name.replace(' ', '_')}": best[OURS] / best[name] if best[name] else float("inf")
            for name in best
            if name != OURS
        }

    @property
    def equal(self) -> dict[str, float]:
        """How much of what each peer reads is what we read."""
        return {name: equal_share(self.texts[OURS], texts) for name, texts in self.texts.items() if name != OURS}

    def faults(self) -> list[str]:
        """What keeps it from having passed."""
        found = [
            f"{name} reads something else: {share:.1%} of the texts are the same, so rates cannot be compared"
            for name, share in self.equal.items()
            if share < LEAST_EQUAL
        ]
        failed = Counter({name: sum(row.failed for row in self.rows if row.name == name) for name in self.texts})
        found += [f"{name} failed {count} requests" for name, count in failed.items() if count]
        found += [f"{name} = {ratio:.2f} is below {BAR:g}" for name, ratio in self.ratios.items() if ratio < BAR]
        return found

    @property
    def judged(self) -> bool:
        """Whether the machine was quiet enough."""
        return self.busy <= BUSY

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "best_images_per_s": self.best_per_s,
            "equal_texts": self.equal,
            "ratios": self.ratios,
            "busy": self.busy,
            "judged": self.judged,
            "faults": self.faults(),
        }


def equal_share(ours: Texts, theirs: Texts) -> float:
    """How much of what both read is the same, as bags of texts: 2 * common / all; 1 where neither reads anything."""
    common = sum(sum((Counter(mine) & Counter(other)).values()) for mine, other in zip(ours, theirs, strict=True))
    total = sum(map(len, ours)) + sum(map(len, theirs))
    return 2 * common / total if total else 1.0
