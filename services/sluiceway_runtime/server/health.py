"""The health service of a server, which also says which server it is."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2

__all__ = ["SERVER_ID_KEY", "HealthServicer"]

# Part of the contract: docs/clients.md.
SERVER_ID_KEY = "sluiceway-server-id"


class HealthServicer(health.aio.HealthServicer):
    """`grpc.health.v1.Health`, whose checks are answered with the server's id in the initial metadata.

    A client that reaches several servers by one address learns from it which one is at the other end of a connection.
    Other calls do not carry it: metadata that goes before an answer is a message of its own.

    Args:
        server_id: of the process; no two have the same.
    """

    def __init__(self, server_id: str) -> None:
        super().__init__()
        self._metadata = ((SERVER_ID_KEY, server_id),)

    async def Check(  # noqa: N802 - as gRPC has it
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Say whether a service is served; see the contract of gRPC."""
        await context.send_initial_metadata(self._metadata)
        return await super().Check(request, context)
