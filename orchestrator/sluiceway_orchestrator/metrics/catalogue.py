"""Every family that the orchestrator shows besides those of every server."""

from __future__ import annotations

from sluiceway_orchestrator.metrics import apis, collector, sources

__all__ = ["ORCHESTRATOR"]

ORCHESTRATOR = (
    sources.DURATION,
    sources.FAILURES,
    sources.STEP,
    sources.REGIONS,
    *collector.FAMILIES,
    apis.CALLS,
    apis.DURATION,
)
