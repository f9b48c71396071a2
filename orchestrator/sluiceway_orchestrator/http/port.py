"""The HTTP server: takes jobs and answers them, and says what it is."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.metadata import version

from aiohttp import web
from multidict import MultiDict
from sluiceway_runtime.account import Account, MemoryBudget
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import ImageTooLarge, Internal, SluicewayError, StartupError, Unavailable
from sluiceway_runtime.recorder import Recorder, fault_of
from sluiceway_runtime.server.calls import REQUEST_ID_KEY, current_request_id
from sluiceway_runtime.server.security import ANONYMOUS, Security
from sluiceway_runtime.tracing import Tracer
from sluiceway_runtime.tracing.calls import begin_call, end_call

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.http.answers import JSON, answer_type, send_document, send_events
from sluiceway_orchestrator.http.convert import names_of, seconds_of
from sluiceway_orchestrator.http.docs_page import PAGE_HEADERS, page
from sluiceway_orchestrator.http.open_inference import Caller, OpenInference
from sluiceway_orchestrator.http.openapi import document
from sluiceway_orchestrator.http.origin import OriginGuard
from sluiceway_orchestrator.http.page.files import page_routes
from sluiceway_orchestrator.http.problem import plain_problem, problem_response
from sluiceway_orchestrator.http.reading import JobReader
from sluiceway_orchestrator.http.results import Results
from sluiceway_orchestrator.http.tls import server_context
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["HttpPort"]

log = logging.getLogger(__name__)

# A client's own id is taken over when it is short and harmless in a log line.
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Connections that are idle are not worth waiting for.
_CLOSE_S = 0.5

# Load balancers ask these by address, and what they hear is nothing to hide.
_OPEN = frozenset(("/healthz", "/v2/health/live", "/v2/health/ready"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpPort:
    """Serves `POST /v1/process`, and with GET `/v1/describe`, `/openapi.json`, `/docs` and `/healthz`.

    Args:
        config: of the orchestrator: its limits hold here as well.
        http: where to listen and who may call.
        limits: what jobs may be.
        budget: where room for a body is reserved before it is read.
        run: runs a job and hands out its events.
        describe: what the server offers, as JSON.
        inference: pipelines as models, under `/v2`.
        security: TLS and tokens, those of gRPC.
        recorder: remembers the latest requests.
        tracer: of requests, if traces are wanted.
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
        inference: OpenInference | None = None,
        security: Security | None = None,
        recorder: Recorder | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._recorder = recorder or Recorder()
        self._tracer = tracer
        self._inference = inference
        self._http = http
        self._limits = limits
        self._budget = budget
        self._run = run
        self._describe = describe
        self._security = security or Security()
        self._reader = JobReader(config)
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
        app = web.Application(client_max_size=self._reader.limit_bytes, middlewares=[self._surround])
        app.add_routes(
            [
                web.post("/v1/process", self._process),
                web.get("/v1/describe", self._description),
                web.get("/openapi.json", self._openapi),
                web.get("/docs", self._docs),
                web.get("/healthz", self._healthz),
            ]
        )
        if self._http.page:
            app.add_routes(page_routes())
        if self._inference is not None:
            app.add_routes(self._inference.routes(self._infer, self._client))
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
        if request.path not in _OPEN and not self._guard.knows_host(request):
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
        except web.HTTPRedirection:
            raise
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

    async def _docs(self, _: web.Request) -> web.Response:
        return web.Response(text=page(version("sluiceway")), content_type="text/html", headers=PAGE_HEADERS)

    async def _healthz(self, _: web.Request) -> web.Response:
        if self._draining:
            return web.Response(text="draining\n", status=503)
        return web.Response(text="ok\n")

    @contextmanager
    def _remembered(self, request: web.Request) -> Iterator[None]:
        """Remember when a request came and ended, and why it failed."""
        number, started_s = self._recorder.calls.begin(), monotonic()
        method, trace = f"{request.method} {request.path}", None
        if self._tracer is not None:
            trace = begin_call(self._tracer, self._recorder.batches, number, method, request.headers)
        fault: tuple[str, ...] = ()
        code = "OK"
        try:
            yield
        except web.HTTPException as error:
            code, fault = "INVALID_ARGUMENT", ("", error.reason, "")
            raise
        except BaseException as error:
            fault = fault_of(error)
            code = error.code if isinstance(error, SluicewayError) else fault[0]
            raise
        finally:
            request_id = current_request_id.get()
            row = (number, method, request_id, started_s, started_s, monotonic(), code, *fault)
            self._recorder.calls.ended(row)
            if trace is not None and self._tracer is not None:
                end_call(self._tracer, self._recorder.batches, trace, row)

    @asynccontextmanager
    async def _admitted(self, request: web.Request) -> AsyncIterator[tuple[str, Account]]:
        """Let work for a request begin in this block: who asks, and where its bytes are counted.

        Raises:
            Unauthenticated, QueueFull, Unavailable: it may not begin.
        """
        client = self._client(request)
        if self._draining:
            raise Unavailable("the server is draining", retry_after_s=1.0)
        leave = self._security.access.enter(client)
        self._running += 1
        self._idle.clear()
        try:
            with self._budget.account() as account:
                yield client, account
        finally:
            leave()
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _process(self, request: web.Request) -> web.StreamResponse:
        with self._remembered(request):
            return await self._run_job(request)

    async def _run_job(self, request: web.Request) -> web.StreamResponse:
        async with self._admitted(request) as (client, account):
            kind = answer_type(request.headers.get("Accept", "*/*"))
            job, names = await self._job(request, client, account)
            if kind == JSON:
                # The document has no place for them.
                job = replace(job, return_images=False)
            async with aclosing(self._run(job)) as events:
                if kind == JSON:
                    return await send_document(request, Results(names), job.deadline, account, events)
                return await send_events(request, kind, job.deadline, events)

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        with self._remembered(request):
            return await self._run_inference(request)

    async def _run_inference(self, request: web.Request) -> web.StreamResponse:
        async with self._admitted(request) as (client, account):
            deadline = Deadline.after(self._config.default_deadline_s)
            body = await self._reader.body(request, deadline, account)
            caller = Caller(self._name_of(client, request), deadline, current_request_id.get())
            assert self._inference is not None
            return await self._inference.infer(request, body, caller)

    def _name_of(self, client: str, request: web.Request) -> str:
        """Who shares fairly with whom."""
        return client if client != ANONYMOUS else request.remote or ANONYMOUS

    async def _job(self, request: web.Request, client: str, account: Account) -> tuple[Job, dict[str, str]]:
        """The job of a request, and what its sources are called."""
        query = MultiDict(request.query)
        asked = query.pop("timeout_s", None)
        timeout_s = self._config.default_deadline_s if asked is None else seconds_of(asked)
        deadline = Deadline.after(min(timeout_s, self._config.max_deadline_s))
        parsed = await self._reader.read(request, query, deadline, account)
        job = job_from_request(
            parsed,
            client=self._name_of(client, request),
            deadline=deadline,
            request_id=current_request_id.get(),
            limits=self._limits,
        )
        return job, names_of(parsed)


def _preflight() -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": f"Authorization, Content-Type, {REQUEST_ID_KEY}",
        "Access-Control-Max-Age": "600",
    }
    return web.Response(status=204, headers=headers)
