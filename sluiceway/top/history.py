"""What was seen before: rates of everything that has one, for as long as somebody watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sluiceway.figures import ClusterFigures

__all__ = ["ORCHESTRATOR", "History", "key_of_replica", "key_of_stage"]

LENGTH = 120
ORCHESTRATOR = "orchestrator"


def key_of_stage(stage: str) -> str:
    """What a stage is known by, here and in the table."""
    return f"stage {stage}"


def key_of_replica(stage: str, address: str) -> str:
    """Likewise, of one of its replicas."""
    return f"stage {stage} {address}"


class History:
    """Remembers the last rates. What is gone is forgotten."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}

    def add(self, figures: ClusterFigures) -> None:
        """Take down what is new."""
        rates: dict[str, float | None] = {ORCHESTRATOR: figures.orchestrator.rate}
        for stage in figures.stages:
            rates[key_of_stage(stage.name)] = stage.rate
            rates |= {key_of_replica(stage.name, replica.address): replica.rate for replica in stage.replicas}
        for key in set(self._rates) - set(rates):
            del self._rates[key]
        for key, rate in rates.items():
            self._rates.setdefault(key, deque(maxlen=LENGTH)).append(rate or 0.0)

    def of(self, key: str) -> Sequence[float]:
        """The rates of one, the oldest first."""
        return tuple(self._rates.get(key, ()))
