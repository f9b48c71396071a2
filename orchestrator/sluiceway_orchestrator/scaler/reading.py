"""What one orchestrator knows of a stage that is scaled, and what all of them know together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Reading", "joined"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How much a stage is wanted.

    Attributes:
        wait_ms: how long work waits for it, smoothed.
        active: whether there is work at all, or a job that may come to it.
        replicas: those that take work.
    """

    wait_ms: int = 0
    active: bool = False
    replicas: int = 0


def joined(readings: Iterable[Reading]) -> Reading:
    """The worst of all: each orchestrator has lines of its own, and sees every replica."""
    found = tuple(readings)
    return Reading(
        max((reading.wait_ms for reading in found), default=0),
        any(reading.active for reading in found),
        max((reading.replicas for reading in found), default=0),
    )
