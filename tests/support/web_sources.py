"""Images that an orchestrator fetches from a web server of the test's own, and what a client hears of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from sluiceway_orchestrator.testing import Cluster, SourceEvents

from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["LOOPBACK", "Handler", "api_source", "http", "one"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = ["127.0.0.0/8"]


@asynccontextmanager
async def http(handler: Handler) -> AsyncIterator[str]:
    """Serve every path with `handler`; the address."""
    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{rest:.*}", handler)
    async with TestServer(application) as server:
        yield f"http://127.0.0.1:{server.port}"


def api_source(api: str, **params: str) -> pipeline_pb2.Source:
    """A source that is a call of an API."""
    return pipeline_pb2.Source(api_call=pipeline_pb2.ApiCall(api=api, params=params))


async def one(cluster: Cluster, source: pipeline_pb2.Source, **options: Any) -> SourceEvents:
    """Process one source, which has to end; what was heard of it."""
    (events,) = (await cluster.process(source, **options)).values()
    assert events.finished
    return events
