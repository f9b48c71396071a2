"""`GET /v1/watch`: how the cluster is, a line of JSON again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from aiohttp import web
from sluiceway_runtime.errors import InvalidOption, Unavailable

from sluiceway_orchestrator.http.answers import NDJSON
from sluiceway_orchestrator.http.convert import message_to_json
from sluiceway_orchestrator.watch.convert import figures_to_proto
from sluiceway_orchestrator.watch.watching import Watching, interval_s_of

__all__ = ["watch_routes"]

# Who takes nothing for so long does not watch any more.
_UNREAD_S = 30.0


def watch_routes(watching: Watching, client_of: Callable[[web.Request], str]) -> list[web.RouteDef]:
    """The route; `client_of` raises Unauthenticated for whoever may not ask."""

    async def watch(request: web.Request) -> web.StreamResponse:
        client_of(request)
        return await _send_figures(request, watching)

    return [web.get("/v1/watch", watch)]


async def _send_figures(request: web.Request, watching: Watching) -> web.StreamResponse:
    """Write figures, a `WatchResponse` a line, until the client leaves or the server drains.

    Raises:
        InvalidOption: `interval_s` is no interval.
    """
    interval_s = interval_s_of(_asked_s(request))
    response = web.StreamResponse(headers={"Content-Type": f"{NDJSON}; charset=utf-8", "Cache-Control": "no-store"})
    # Proxies that buffer would turn the stream into one late answer.
    response.headers["X-Accel-Buffering"] = "no"
    async with aclosing(watching.figures(interval_s)) as all_figures:
        first = await anext(all_figures)
        await response.prepare(request)
        try:
            await _write(response, message_to_json(figures_to_proto(first)))
            async for figures in all_figures:
                await _write(response, message_to_json(figures_to_proto(figures)))
        except Unavailable:
            # It drains; whoever still watches asks again, and gets another server.
            await response.write_eof()
        except ConnectionError:
            pass
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
    return response


async def _write(response: web.StreamResponse, line: str) -> None:
    async with asyncio.timeout(_UNREAD_S):
        await response.write(f"{line}\n".encode())


def _asked_s(request: web.Request) -> float | None:
    text = request.query.get("interval_s")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidOption("interval_s: must be a number of seconds") from None
