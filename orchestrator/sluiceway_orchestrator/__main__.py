"""`python -m sluiceway_orchestrator`: the orchestrator's server."""

from __future__ import annotations

import os

from sluiceway_runtime.polling import poll_in_one_thread

# Before anything imports gRPC.
poll_in_one_thread(os.environ)

from sluiceway_runtime.server.main import Installation, run_service  # noqa: E402

from sluiceway_orchestrator.config import OrchestratorConfig  # noqa: E402
from sluiceway_orchestrator.config.apis import load_apis  # noqa: E402
from sluiceway_orchestrator.service import OrchestratorService  # noqa: E402


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
