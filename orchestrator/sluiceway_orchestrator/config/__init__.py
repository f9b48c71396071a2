"""Sections of the configuration that are the orchestrator's: what each may say by itself."""

from sluiceway_orchestrator.config.orchestrator import OrchestratorConfig

__all__ = ["OrchestratorConfig"]
