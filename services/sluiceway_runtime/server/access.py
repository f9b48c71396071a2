"""The interceptor that lets in whom the `[security]` block names, before anything else looks at a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sluiceway_runtime.errors import Unauthenticated
from sluiceway_runtime.server.security import Security, current_client
from sluiceway_runtime.server.status import code_of, trailers

__all__ = ["AccessInterceptor"]

_HEALTH = "/grpc.health.v1.Health/"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Asks every call for its token; reflection, health and unknown methods too.

    A call that is refused ends before its request is read, so a stranger cannot make the server parse anything.
    """

    def __init__(self, security: Security) -> None:
        self._access = security.access
        self._health_is_open = security.config.health_without_token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through to its handler, or answer it with a refusal."""
        if not (self._health_is_open and handler_call_details.method.startswith(_HEALTH)):
            metadata = dict(handler_call_details.invocation_metadata or ())
            authorization = metadata.get("authorization")
            try:
                client = self._access.client_of(authorization if isinstance(authorization, str) else None)
            except Unauthenticated as error:
                return _refusal(error)
            current_client.set(client)
        return await continuation(handler_call_details)


def _refusal(error: Unauthenticated) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(code_of(error), error.message, trailers(error))

    # Whatever the method's kind: a streaming handler answers without reading a request.
    return grpc.stream_stream_rpc_method_handler(refuse)
