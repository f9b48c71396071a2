"""A trial as a value: all that was drawn, so that a part of it can be left out and the rest run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluiceway_simulation.clients import Ask
from sluiceway_simulation.cluster import ClusterPlan

__all__ = ["Fault", "Job", "Trial"]


@dataclass(frozen=True, slots=True)
class Job:
    """A job and when its client asks for it."""

    at_s: float
    client: str
    ask: Ask


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: see `faults`.
        stage: whose replicas it concerns; empty for none in particular.
        which: of the replicas or workers that are there then, by this number modulo theirs.
        lasts_s: until it is over; 0 for what happens in a moment.
        amount: how bad it is, by kind.
    """

    at_s: float
    kind: str
    stage: str = ""
    which: int = 0
    lasts_s: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        facts = [self.kind, self.stage, f"#{self.which}", f"for {self.lasts_s:.2f} s" if self.lasts_s else ""]
        return " ".join(fact for fact in facts if fact)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is done to a cluster.

    Attributes:
        pipelines: names of the pipelines that jobs use, with the steps that read regions of each.
        probes: how many jobs are asked for when all faults are over.
        streams: whether each client has one stream for its jobs, and not a call for each.
    """

    seed: int
    cluster: ClusterPlan
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]
    pipelines: Mapping[str, tuple[str, ...]]
    probes: int = 6
    streams: bool = False

    @property
    def sources(self) -> int:
        """Of all jobs."""
        return sum(len(job.ask.pictures) for job in self.jobs)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of its faults."""
        return frozenset(fault.kind for fault in self.faults)

    def facts(self) -> dict[str, Any]:
        """In short."""
        return {
            "sources": self.sources,
            "replicas": dict(self.cluster.replicas),
            "faults": sorted(self.kinds),
        }
