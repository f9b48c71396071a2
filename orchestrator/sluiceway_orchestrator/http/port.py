"""The HTTP server: takes jobs and answers them, and says what it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from aiohttp import web
from multidict import MultiDict
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.http.body import JSON_COPIES, take_body
from sluiceway_runtime.http.port import Admitted, PublicPort
from sluiceway_runtime.http.remembering import remembered
from sluiceway_runtime.inference.http_routes import HEALTH_PATHS, OpenInference
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.release import release
from sluiceway_runtime.server.calls import Caller, current_request_id
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.tracing import Tracer

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.http.answers import JSON, answer_type, send_document, send_events
from sluiceway_orchestrator.http.convert import names_of, seconds_of
from sluiceway_orchestrator.http.docs_page import PAGE_HEADERS, page
from sluiceway_orchestrator.http.openapi import document
from sluiceway_orchestrator.http.page.files import page_routes
from sluiceway_orchestrator.http.reading import JobReader
from sluiceway_orchestrator.http.results import Results
from sluiceway_orchestrator.http.watch import watch_routes
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.outbox import Addressed
from sluiceway_orchestrator.watch.watching import Watching

__all__ = ["HttpPort"]

# Load balancers ask these by address, and what they hear is nothing to hide.
_OPEN = ("/healthz", *HEALTH_PATHS)


class HttpPort(PublicPort):
    """Serves `POST /v1/process`, and with GET `/v1/describe`, `/v1/watch`, `/openapi.json`, `/docs` and `/healthz`.

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
        watching: figures of the cluster for whoever watches.

    Attributes:
        metrics: of its requests.
        port: once it listens.
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
        watching: Watching | None = None,
    ) -> None:
        self._reader = JobReader(config)
        super().__init__(
            http,
            section="orchestrator",
            key="orchestrator.http",
            limit_bytes=self._reader.limit_bytes,
            budget=budget,
            security=security,
            open_paths=_OPEN,
            access_log=config.access_log,
        )
        self._config = config
        self._recorder = recorder or Recorder()
        self._tracer = tracer
        self._inference = inference
        self._page = http.page
        self._limits = limits
        self._run = run
        self._describe = describe
        self._watching = watching

    def routes(self) -> list[web.AbstractRouteDef]:
        """What is answered."""
        routes: list[web.AbstractRouteDef] = [
            web.post("/v1/process", self._process),
            web.get("/v1/describe", self._description),
            web.get("/openapi.json", self._openapi),
            web.get("/docs", self._docs),
            web.get("/healthz", self._healthz),
        ]
        if self._watching is not None:
            routes += watch_routes(self._watching, self.client_of)
        if self._page:
            routes += page_routes()
        if self._inference is not None:
            routes += self._inference.routes(self._infer, self.client_of)
        return routes

    async def _description(self, request: web.Request) -> web.Response:
        self.client_of(request)
        return web.Response(text=self._describe(), content_type="application/json")

    async def _openapi(self, _: web.Request) -> web.Response:
        # Open to all: it is the same for every server of this release.
        return web.json_response(document(release()))

    async def _docs(self, _: web.Request) -> web.Response:
        return web.Response(text=page(release()), content_type="text/html", headers=PAGE_HEADERS)

    async def _healthz(self, _: web.Request) -> web.Response:
        if self.draining:
            return web.Response(text="draining\n", status=503)
        return web.Response(text="ok\n")

    async def _process(self, request: web.Request) -> web.StreamResponse:
        with remembered(request, self._recorder, self._tracer):
            return await self._run_job(request)

    async def _run_job(self, request: web.Request) -> web.StreamResponse:
        async with self.admitted(request) as admitted:
            kind = answer_type(request.headers.get("Accept", "*/*"))
            job, names = await self._job(request, admitted)
            if kind == JSON:
                # The document has no place for them.
                job = replace(job, return_images=False)
            async with aclosing(self._run(job)) as events:
                if kind == JSON:
                    return await send_document(request, Results(names), job.deadline, admitted.account, events)
                return await send_events(request, kind, job.deadline, events)

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        with remembered(request, self._recorder, self._tracer):
            return await self._run_inference(request)

    async def _run_inference(self, request: web.Request) -> web.StreamResponse:
        async with self.admitted(request) as admitted:
            deadline = Deadline.after(self._config.default_deadline_s)
            body = await take_body(request, self._limit_bytes, deadline, admitted.account, copies=JSON_COPIES)
            assert self._inference is not None
            return await self._inference.infer(
                request, body, Caller(admitted.neighbour, deadline, current_request_id.get())
            )

    async def _job(self, request: web.Request, admitted: Admitted) -> tuple[Job, dict[str, str]]:
        """The job of a request, and what its sources are called."""
        query = MultiDict(request.query)
        asked = query.pop("timeout_s", None)
        timeout_s = self._config.default_deadline_s if asked is None else seconds_of(asked)
        deadline = Deadline.after(min(timeout_s, self._config.max_deadline_s))
        parsed = await self._reader.read(request, query, deadline, admitted.account)
        job = job_from_request(
            parsed,
            client=admitted.neighbour,
            deadline=deadline,
            request_id=current_request_id.get(),
            limits=self._limits,
            longest=Deadline.after(self._config.max_deadline_s) if asked is None else None,
        )
        return job, names_of(parsed)
