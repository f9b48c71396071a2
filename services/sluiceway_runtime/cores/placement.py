"""Where a worker runs: what the planner decides and the pool carries out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a worker runs.

    Attributes:
        index: number of the worker, 0 to N-1.
        device: `cpu`, `cuda:0` and so on.
        cores: logical CPUs it is pinned to; None leaves it to the system.
        threads: compute threads it may use.
    """

    index: int
    device: str
    cores: tuple[int, ...] | None
    threads: int
