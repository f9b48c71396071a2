"""`python -m sluiceway_orchestrator`: the orchestrator's server."""

from __future__ import annotations

from sluiceway_runtime.server.main import Installation, run_service

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import load_apis
from sluiceway_orchestrator.service import OrchestratorService


def build(config: OrchestratorConfig, installation: Installation) -> OrchestratorService:
    """Make the service from its section, the tables of APIs, stages and pipelines, and the secrets that they name."""
    return OrchestratorService(
        config,
        load_apis(installation.tables),
        installation.environment,
        tables=installation.tables,
        security=installation.security,
    )


if __name__ == "__main__":
    run_service("orchestrator", OrchestratorConfig, build)
