"""The HTTP server: takes a job, streams its events as NDJSON or server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import version

from aiohttp import web
from multidict import MultiDict
from sluiceway_runtime.account import Account, MemoryBudget, Phase, phase_of_request
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    Internal,
    InvalidOption,
    SluicewayError,
    StartupError,
    Unavailable,
)
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, current_request_id
from sluiceway_runtime.server.security import ANONYMOUS, Security

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.http.body import BODY_COPIES, length_of, read_body
from sluiceway_orchestrator.http.convert import event_to_json, request_from_image, request_from_json
from sluiceway_orchestrator.http.openapi import document
from sluiceway_orchestrator.http.origin import OriginGuard
from sluiceway_orchestrator.http.page.files import page_routes
from sluiceway_orchestrator.http.problem import plain_problem, problem_body, problem_response
from sluiceway_orchestrator.http.tls import server_context
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["HttpPort"]

log = logging.getLogger(__name__)

NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
# A client's own id is taken over when it is short and harmless in a log line.
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# JSON carries images as base64, four bytes for three, and a little beside them.
_JSON_OVERHEAD = 4 / 3
_JSON_EXTRA_BYTES = 64 * 2**10
# Parsing more than this would hold up the loop noticeably.
_PARSE_ELSEWHERE_BYTES = 256 * 2**10
# Connections that are idle are not worth waiting for.
_CLOSE_S = 0.5

# Of JSON, while it is taken apart: also its text, and the images that come out of it.
JSON_COPIES = 4
_LIMIT = web.AppKey("limit", int)
# A client that reads none of this for so long after the time of its job is cut off.
_UNREAD_S = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpPort:
    """Serves `POST /v1/process`, `GET /v1/describe` and `GET /openapi.json`.

    Args:
        config: of the orchestrator: its limits hold here as well.
        http: where to listen and who may call.
        limits: what jobs may be.
        budget: where room for a body is reserved before it is read.
        run: runs a job and hands out its events.
        describe: what the server offers, as JSON.
        security: TLS and tokens, those of gRPC.
    """

    def __init__(
        self,
        config: OrchestratorConfig,
        http: HttpConfig,
        *,
        limits: JobLimits,
        budget: MemoryBudget,
        run: Callable[[Job], AsyncGenerator[Addressed]],
        describe: Callable[[], str],
        security: Security | None = None,
    ) -> None:
        self._config = config
        self._http = http
        self._limits = limits
        self._budget = budget
        self._run = run
        self._describe = describe
        self._security = security or Security()
        self._guard = OriginGuard(http.host, http.allow_hosts, http.allow_origins)
        self._runner: web.AppRunner | None = None
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = 0

    async def start(self) -> None:
        """Listen, unless the configuration says not to.

        Raises:
            StartupError: the address cannot be had, or would be open to others without a check of who calls.
        """
        if not self._http.enabled:
            return
        self._security.require_safe("orchestrator", self._http.host)
        limit = int(self._config.max_message_bytes * _JSON_OVERHEAD) + _JSON_EXTRA_BYTES
        app = web.Application(client_max_size=limit, middlewares=[self._surround])
        app[_LIMIT] = limit
        app.add_routes(
            [
                web.post("/v1/process", self._process),
                web.get("/v1/describe", self._description),
                web.get("/openapi.json", self._openapi),
            ]
        )
        if self._http.page:
            app.add_routes(page_routes())
        app.on_response_prepare.append(self._allow_origin)
        # A client that goes away cancels its handler, and with it the job.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=_CLOSE_S
        )
        await self._runner.setup()
        mutual = "orchestrator" in self._security.config.mutual
        context = server_context(self._security.config, mutual=mutual)
        try:
            await web.TCPSite(self._runner, self._http.host, self._http.port, ssl_context=context).start()
        except OSError as error:
            await self.close()
            raise StartupError(
                f"cannot listen on {self._http.host}:{self._http.port} (orchestrator.http): {error.strerror}"
            ) from error
        self.port = int(self._runner.addresses[0][1])
        log.info("HTTP on %s:%d", self._http.host, self.port)

    def refuse(self) -> None:
        """Take no more jobs; those that run go on."""
        self._draining = True

    async def drain(self, grace_s: float) -> bool:
        """Wait for the jobs that run; returns whether all of them ended."""
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

    @web.middleware
    async def _surround(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check where the request comes from, and tell every failure in one form."""
        given = request.headers.get(REQUEST_ID_KEY, "")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex[:16]
        current_request_id.set(request_id)
        if not self._guard.knows_host(request):
            return plain_problem(421, "this server does not go by that name; see orchestrator.http.allow_hosts")
        try:
            origin = self._guard.allowed_origin(request)
        except PermissionError:
            return plain_problem(403, "pages of this origin may not call; see orchestrator.http.allow_origins")
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
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return plain_problem(error.status, error.reason, headers)
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

    def _client(self, request: web.Request) -> str:
        return self._security.access.client_of(request.headers.get("Authorization"))

    async def _description(self, request: web.Request) -> web.Response:
        self._client(request)
        return web.Response(text=self._describe(), content_type="application/json")

    async def _openapi(self, _: web.Request) -> web.Response:
        # Open to all: it is the same for every server of this release.
        return web.json_response(document(version("sluiceway")))

    async def _process(self, request: web.Request) -> web.StreamResponse:
        client = self._client(request)
        if self._draining:
            raise Unavailable("the server is draining", retry_after_s=1.0)
        leave = self._security.access.enter(client)
        self._running += 1
        self._idle.clear()
        try:
            kind = _answer_type(request)
            with self._budget.account() as account:
                job = await self._job(request, client, account)
                async with aclosing(self._run(job)) as events:
                    return await _stream(request, kind, job.deadline, events)
        finally:
            leave()
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _job(self, request: web.Request, client: str, account: Account) -> Job:
        query = MultiDict(request.query)
        deadline = Deadline.after(
            min(_timeout_s(query.pop("timeout_s", None), self._config), self._config.max_deadline_s)
        )
        length = length_of(request)
        phase = Phase.DOOR if length is None else phase_of_request(length)
        if request.content_type == "application/json":
            if query:
                raise InvalidOption(f"{next(iter(query))}: options of a JSON request go into its body")
            body = await self._body(request, deadline, account, phase, JSON_COPIES)
            parse = request_from_json
            parsed = parse(body) if len(body) < _PARSE_ELSEWHERE_BYTES else await asyncio.to_thread(parse, body)
        elif request.content_type == "application/octet-stream" or request.content_type.startswith("image/"):
            limit = self._config.max_image_bytes
            if (request.content_length or 0) > limit:
                raise ImageTooLarge("the image is larger than the limit", metadata={"max_image_bytes": str(limit)})
            parsed = request_from_image(await self._body(request, deadline, account, phase, BODY_COPIES), query)
        else:
            raise web.HTTPUnsupportedMediaType(reason="send an image (image/*) or application/json")
        account.settle(parsed.size_bytes, phase)
        return job_from_request(
            parsed,
            client=client if client != ANONYMOUS else request.remote or ANONYMOUS,
            deadline=deadline,
            request_id=current_request_id.get(),
            limits=self._limits,
        )

    async def _body(
        self, request: web.Request, deadline: Deadline, account: Account, phase: Phase, copies: int
    ) -> bytearray:
        """Read the body once there is room for it, and in the time of the job.

        A client that stopped sending must not keep its place for ever. A body that does not say how long it is takes
        room for the longest.
        """
        limit = request.app[_LIMIT]
        expected = length_of(request)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await account.reserve(copies * min(limit if expected is None else expected, limit), phase)
                return await read_body(request, limit)
        except TimeoutError:
            raise DeadlineExceeded("the time ran out before the body was here") from None
        except web.RequestPayloadError:
            raise InvalidOption("body: it is not encoded as its headers say") from None


def _answer_type(request: web.Request) -> str:
    accepted = request.headers.get("Accept", "*/*")
    names = [item.split(";")[0].strip().lower() for item in accepted.split(",")]
    if EVENTS in names:
        return EVENTS
    if not {NDJSON, "*/*", "application/*"} & set(names):
        raise web.HTTPNotAcceptable(reason=f"answers are {NDJSON} or {EVENTS}")
    return NDJSON


def _timeout_s(text: str | None, config: OrchestratorConfig) -> float:
    if text is None:
        return config.default_deadline_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidOption("timeout_s: must be a number of seconds above 0")
    return seconds


async def _stream(
    request: web.Request, kind: str, deadline: Deadline, events: AsyncGenerator[Addressed]
) -> web.StreamResponse:
    """Write events as they come, until the time of the job is over.

    A job that fails before its first event gets a status of its own. A client that does not read is cut off: what it
    has not read is given up by then, and its connection holds nothing but what fits into the socket.
    """
    first = await anext(events)
    response = web.StreamResponse(headers={"Content-Type": f"{kind}; charset=utf-8", "Cache-Control": "no-store"})
    # Proxies that buffer would turn the stream into one late answer.
    response.headers["X-Accel-Buffering"] = "no"
    await response.prepare(request)
    try:
        async with asyncio.timeout(deadline.remaining_s() + _UNREAD_S):
            await _write(response, kind, first, events)
    except TimeoutError:
        log.info("request %s: the client did not read its answer in time", current_request_id.get())
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write(response: web.StreamResponse, kind: str, first: Addressed, events: AsyncGenerator[Addressed]) -> None:
    await response.write(_frame(kind, *event_to_json(first)))
    try:
        async for event in events:
            await response.write(_frame(kind, *event_to_json(event)))
    except ConnectionError:
        # The client left; leaving the generator ends its job.
        return
    except SluicewayError as error:
        await response.write(_late_problem(kind, error, current_request_id.get()))
    except Exception:
        log.exception("request %s: the stream broke", current_request_id.get())
        await response.write(_late_problem(kind, Internal("internal error"), current_request_id.get()))
    await response.write_eof()


def _frame(kind: str, name: str, text: str) -> bytes:
    return (f"{text}\n" if kind == NDJSON else f"event: {name}\ndata: {text}\n\n").encode()


def _late_problem(kind: str, error: SluicewayError, request_id: str) -> bytes:
    """Frame a failure of the job after its first event: the status is sent already."""
    return _frame(kind, "problem", json.dumps({"problem": problem_body(error, request_id)}, ensure_ascii=False))


def _preflight() -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": f"Authorization, Content-Type, {REQUEST_ID_KEY}",
        "Access-Control-Max-Age": "600",
    }
    return web.Response(status=204, headers=headers)
