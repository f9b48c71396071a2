"""The gRPC server that every stage and the orchestrator run in."""

from sluiceway_runtime.server.app import Server, Service
from sluiceway_runtime.server.main import Installation, run_service

__all__ = ["Installation", "Server", "Service", "run_service"]
