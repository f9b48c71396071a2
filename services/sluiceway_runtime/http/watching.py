"""Every request of a public HTTP port as it ends: counted, and told in the log where that is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.metrics.http import HttpMetrics

__all__ = ["watching"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# As OpenTelemetry has it: clients may make up any.
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_OTHER_METHOD, _OTHER_ROUTE = "_OTHER", "other"
# What a client is told nowhere, as it has left; nginx has made the number known.
_CLIENT_LEFT = 499


log = logging.getLogger(__name__)


def watching(metrics: HttpMetrics, *, access_log: bool) -> Middleware:
    """The outermost of the port's middlewares.

    Args:
        metrics: where requests are counted.
        access_log: whether each is told in the log.
    """

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun_s = monotonic()
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        except (asyncio.CancelledError, ConnectionError):
            status = _CLIENT_LEFT
            raise
        else:
            return response
        finally:
            resource = request.match_info.route.resource
            method = request.method if request.method in _METHODS else _OTHER_METHOD
            route = _OTHER_ROUTE if resource is None else resource.canonical
            seconds = monotonic() - begun_s
            metrics.observe(method, route, status, seconds)
            if access_log:
                log.info("%s %s %d %.1f ms, client %s", method, route, status, seconds * 1000, request.remote or "-")

    return watch
