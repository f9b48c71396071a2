"""A server as every other one is made, with methods that take and give bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server.listening import bind, make_server

__all__ = ["SERVICE", "serve_methods"]

# Named as one of ours: interceptors leave others alone.
SERVICE = "sluiceway.X"


@asynccontextmanager
async def serve_methods(
    methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    **config: Any,
) -> AsyncIterator[str]:
    """Serve methods of `SERVICE`; the address."""
    settings = ServerConfig(port=0, operations_port=0, **config)
    server = make_server(settings, interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = bind(server, settings)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
