"""`sluiceway.watch.v1.WatchService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from sluiceway.watch.v1 import watch_pb2, watch_pb2_grpc
from sluiceway_orchestrator.watch.convert import figures_to_proto, interval_s_asked
from sluiceway_orchestrator.watch.watching import Watching, interval_s_of

__all__ = ["SERVICE", "WatchServicer", "add_watch"]

SERVICE = "sluiceway.watch.v1.WatchService"
Context = grpc.aio.ServicerContext[Any, Any]


class WatchServicer(watch_pb2_grpc.WatchServiceServicer):
    """Tells whoever watches."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    async def Watch(  # noqa: N802 - the contract's name
        self,
        request: watch_pb2.WatchRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[watch_pb2.WatchResponse]:
        """Say how the cluster is, again and again; see the contract."""
        interval_s = interval_s_of(interval_s_asked(request))
        async with aclosing(self._watching.figures(interval_s)) as all_figures:
            async for figures in all_figures:
                yield figures_to_proto(figures)


def add_watch(server: grpc.aio.Server, watching: Watching) -> None:
    """Serve the contract."""
    watch_pb2_grpc.add_WatchServiceServicer_to_server(WatchServicer(watching), server)
