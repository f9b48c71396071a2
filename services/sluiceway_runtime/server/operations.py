"""The operations port: plain HTTP for probes, scrapers and operators. It tells states and numbers, never contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.lifecycle import Lifecycle, State

__all__ = ["OperationsPort"]


class OperationsPort:
    """Serves `/livez`, `/readyz`, `/metrics` and `/statusz`.

    Args:
        lifecycle: decides `/livez` (everything but FAILED and STOPPED is alive).
        ready: decides `/readyz`.
        registry: what `/metrics` shows.
        status: what `/statusz` shows, as JSON.
        problems: what `/readyz` shows besides the state, a line each.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        ready: Callable[[], bool],
        registry: CollectorRegistry,
        status: Callable[[], Mapping[str, Any]],
        problems: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._lifecycle = lifecycle
        self._ready = ready
        self._registry = registry
        self._status = status
        self._problems = problems
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, *, shares_port: bool = False) -> int:
        """Listen; returns the port.

        Args:
            host: where.
            port: likewise; 0 lets the system choose.
            shares_port: whether another server that says so as well may listen there.

        Raises:
            StartupError: the address cannot be had.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/statusz", self._statusz),
            ]
        )
        # Probes must not keep a stopping server waiting.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        await self.listen_also(host, port, shares_port=shares_port)
        return int(self._runner.addresses[0][1])

    async def listen_also(self, host: str, port: int, *, shares_port: bool) -> None:
        """Listen at another port besides; see `start`."""
        assert self._runner is not None
        try:
            await web.TCPSite(self._runner, host, port, reuse_port=shares_port).start()
        except OSError as error:
            await self.close()
            raise StartupError(f"cannot listen on {host}:{port} (operations port): {error.strerror}") from error

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _: web.Request) -> web.Response:
        alive = self._lifecycle.state not in (State.FAILED, State.STOPPED)
        return web.Response(text=self._lifecycle.state.value + "\n", status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        lines = (self._lifecycle.state.value, *self._problems())
        return web.Response(text="".join(f"{line}\n" for line in lines), status=200 if self._ready() else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _statusz(self, _: web.Request) -> web.Response:
        return web.json_response({"state": self._lifecycle.state.value, **self._status()})
