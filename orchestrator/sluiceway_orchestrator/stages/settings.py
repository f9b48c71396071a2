"""What an operator decides about every stage alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluiceway_orchestrator.backlog import Ageing

__all__ = ["StageSettings"]


@dataclass(frozen=True, slots=True)
class StageSettings:
    """See `OrchestratorConfig`."""

    resolve_interval_s: float = 2.0
    initial_window: int = 4
    retry_ratio: float = 0.2
    # Enough for everything in flight with a replica that dies.
    retry_reserve: int = 512
    ageing: Ageing = field(default_factory=Ageing)
