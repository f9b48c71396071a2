"""The gRPC server that every stage and the orchestrator run in."""

from sluiceway_runtime.server.app import Server, Service
from sluiceway_runtime.server.main import run_service

__all__ = ["Server", "Service", "run_service"]
