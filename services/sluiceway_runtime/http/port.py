"""What every public HTTP port does: listen, check who calls, tell failures in one form, drain."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from sluiceway_runtime.account import Account, MemoryBudget
from sluiceway_runtime.config import HttpPortConfig
from sluiceway_runtime.errors import ImageTooLarge, Internal, SluicewayError, StartupError, Unavailable
from sluiceway_runtime.http.origin import OriginGuard
from sluiceway_runtime.http.problem import plain_problem, problem_response
from sluiceway_runtime.http.tls import server_context
from sluiceway_runtime.http.watching import watching
from sluiceway_runtime.metrics.http import HttpMetrics
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, current_request_id, own_or_new_id
from sluiceway_runtime.server.security import ANONYMOUS, Security

__all__ = ["Admitted", "PublicPort"]

log = logging.getLogger(__name__)

# Connections that are idle are not worth waiting for.
_CLOSE_S = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admitted:
    """A request for which work may begin.

    Attributes:
        client: who asks, by the name of its token.
        neighbour: who shares fairly with whom.
        account: where its bytes are counted.
    """

    __slots__ = ("account", "client", "neighbour")

    def __init__(self, client: str, neighbour: str, account: Account) -> None:
        self.client = client
        self.neighbour = neighbour
        self.account = account


class PublicPort(ABC):
    """Listens; what is answered is for the subclass, whose routes it serves.

    Args:
        http: where to listen and who may call.
        section: name of the server, as `security.mutual` has it.
        key: of the section that `http` comes from, for messages.
        limit_bytes: of a body.
        budget: where room for a body is reserved before it is read.
        security: TLS and tokens, those of gRPC.
        access_log: whether each request is told in the log.
        shares_port: whether another server that says so as well may listen at the same address.
        open_paths: what is answered under any name: load balancers ask by address, and what they hear is nothing to
            hide.
    """

    def __init__(
        self,
        http: HttpPortConfig,
        *,
        section: str,
        key: str,
        limit_bytes: int,
        budget: MemoryBudget,
        security: Security | None,
        open_paths: Iterable[str],
        access_log: bool,
        shares_port: bool = False,
    ) -> None:
        self._http = http
        self._shares_port = shares_port
        self._section = section
        self._key = key
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._security = security or Security()
        self._open = frozenset(open_paths)
        self._access_log = access_log
        self.metrics = HttpMetrics()
        self._guard = OriginGuard(http.host, http.allow_hosts, http.allow_origins)
        self._runner: web.AppRunner | None = None
        self.draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = 0

    @abstractmethod
    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """What is answered."""

    async def start(self) -> None:
        """Listen, unless the configuration says not to.

        Raises:
            StartupError: the address cannot be had, or would be open to others without a check of who calls.
        """
        if not self._http.enabled:
            return
        self._security.require_safe(self._section, self._http.host, f"{self._key}.host")
        app = web.Application(
            client_max_size=self._limit_bytes,
            middlewares=[watching(self.metrics, access_log=self._access_log), self._surround],
        )
        app.add_routes(self.routes())
        app.on_response_prepare.append(self._allow_origin)
        # A client that goes away cancels its handler, and with it the work.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=_CLOSE_S
        )
        await self._runner.setup()
        context = server_context(self._security.config, mutual=self._security.wants_certificate(self._section))
        try:
            site = web.TCPSite(
                self._runner, self._http.host, self._http.port, ssl_context=context, reuse_port=self._shares_port
            )
            await site.start()
        except OSError as error:
            await self.close()
            raise StartupError(
                f"cannot listen on {self._http.host}:{self._http.port} ({self._key}): {error.strerror}"
            ) from error
        self.port = int(self._runner.addresses[0][1])
        log.info("HTTP on %s:%d", self._http.host, self.port)

    def refuse(self) -> None:
        """Take no more work; what runs goes on."""
        self.draining = True

    async def drain(self, grace_s: float) -> bool:
        """Wait for what runs; returns whether all of it ended."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop listening; what still runs is cancelled."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def client_of(self, request: web.Request) -> str:
        """Who asks. Raises Unauthenticated."""
        return self._security.access.client_of(request.headers.get("Authorization"))

    @asynccontextmanager
    async def admitted(self, request: web.Request) -> AsyncIterator[Admitted]:
        """Let work for a request begin in this block.

        Raises:
            Unauthenticated, QueueFull, Unavailable: it may not begin.
        """
        client = self.client_of(request)
        if self.draining:
            raise Unavailable("the server is draining", retry_after_s=1.0)
        leave = self._security.access.enter(client)
        self._running += 1
        self._idle.clear()
        try:
            with self._budget.account() as account:
                yield Admitted(client, client if client != ANONYMOUS else request.remote or ANONYMOUS, account)
        finally:
            leave()
            self._running -= 1
            if not self._running:
                self._idle.set()

    @web.middleware
    async def _surround(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check where the request comes from, and tell every failure in one form."""
        request_id = own_or_new_id(request.headers.get(REQUEST_ID_KEY))
        current_request_id.set(request_id)
        if request.path not in self._open and not self._guard.knows_host(request):
            return plain_problem(421, f"this server does not go by that name; see {self._key}.allow_hosts")
        try:
            origin = self._guard.allowed_origin(request)
        except PermissionError:
            return plain_problem(403, f"pages of this origin may not call; see {self._key}.allow_origins")
        if origin is not None and request.method == "OPTIONS":
            return _preflight()
        try:
            return await handler(request)
        except SluicewayError as error:
            response = problem_response(error, request_id)
            if request.content.exception() is not None:
                # After a body that cannot be read no other request comes over this connection.
                response.force_close()
            return response
        except web.HTTPRequestEntityTooLarge:
            return problem_response(ImageTooLarge("the body is larger than the limit"), request_id)
        except web.HTTPRedirection:
            raise
        except web.HTTPMethodNotAllowed as error:
            # As `curl -T` sends, and a browser that is pointed at it.
            allowed = error.headers["Allow"]
            detail = f"{request.method} is not for this path, which takes {allowed}"
            return plain_problem(405, detail, {"Allow": allowed})
        except web.HTTPException as error:
            return plain_problem(error.status, error.reason)
        except Exception:
            log.exception("request %s: %s %s failed", request_id, request.method, request.path)
            return problem_response(Internal("internal error"), request_id)

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Headers of every answer."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers[REQUEST_ID_KEY] = current_request_id.get()
        origin = request.headers.get("Origin")
        if origin is not None and response.status != 403:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"


def _preflight() -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": f"Authorization, Content-Type, {REQUEST_ID_KEY}",
        "Access-Control-Max-Age": "600",
    }
    return web.Response(status=204, headers=headers)
