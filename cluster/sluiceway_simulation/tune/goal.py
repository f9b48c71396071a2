"""What a machine is tuned for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sluiceway_simulation.planning.predict import Prediction

__all__ = ["Aim", "Goal"]

# Of the best throughput, what the setting with the least memory has to reach.
ENOUGH = 0.8


class Aim(StrEnum):
    """What counts."""

    RATE = "rate"
    MAX_THROUGHPUT = "max-throughput"
    LEAST_MEMORY = "least-memory"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted.

    Attributes:
        aim: what counts.
        rate_per_s: images that come in; None for as many as there can be.
        p99_ms: 99 of 100 are to be done within; None for no bound.
    """

    aim: Aim
    rate_per_s: float | None = None
    p99_ms: float | None = None

    def met_by(self, prediction: Prediction) -> bool:
        """Whether a prediction keeps it; what has no bound is kept by none, as more is always better."""
        if self.rate_per_s is None:
            return False
        if prediction.failed or prediction.per_s < 0.95 * self.rate_per_s:
            return False
        return self.p99_ms is None or prediction.p99_ms <= self.p99_ms

    def worth(self, prediction: Prediction) -> float:
        """The higher the better: throughput, and where that is bound by what comes in, how soon it is done."""
        if self.rate_per_s is None:
            return prediction.per_s
        done = (
            min(1.0, prediction.per_s / self.rate_per_s)
            if not prediction.failed
            else prediction.per_s / self.rate_per_s / 2
        )
        return done + 1 / (1 + prediction.p99_ms)

    def __str__(self) -> str:
        if self.rate_per_s is None:
            return "as many images a second as there can be" if self.aim is Aim.MAX_THROUGHPUT else "the least memory"
        within = f", 99 of 100 within {self.p99_ms:g} ms" if self.p99_ms is not None else ""
        return f"{self.rate_per_s:g} images a second{within}"
