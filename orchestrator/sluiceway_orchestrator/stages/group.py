"""Version groups: replicas of a stage whose answers fit together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Group", "GroupGone", "Shares"]

Description = TypeVar("Description")


@dataclass(frozen=True, slots=True, eq=False)
class Group(Generic[Description]):
    """One version of a stage.

    Attributes:
        name: equal for replicas whose weights, classes and crop specs are equal.
        declared: what calls carry, so that a replica of another version refuses; empty for servers that know no groups.
        description: what its replicas say of themselves.
    """

    name: str
    declared: str
    description: Description


class GroupGone(Exception):
    """No replica serves this version any more, and others are there: the source has to begin anew with one of those."""


class Shares:
    """Whose turn it is, by capacity: of many sources each group gets its share, spread evenly.

    Smooth weighted round-robin: a group's credit grows by its weight each time, and falls by all weights when it is
    chosen.
    """

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def choose(self, weights: Mapping[str, float]) -> str:
        """Pick a group.

        Args:
            weights: at least one; all positive.
        """
        if len(weights) == 1:
            return next(iter(weights))
        self._credit = {name: self._credit.get(name, 0.0) + weight for name, weight in weights.items()}
        chosen = max(self._credit, key=lambda name: self._credit[name])
        self._credit[chosen] -= sum(weights.values())
        return chosen
