"""The public HTTP port in front of a real orchestrator and stages without models, and a client of it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.convert.job import JobLimits
from sluiceway_orchestrator.http.port import HttpPort
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.outbox import Addressed
from sluiceway_orchestrator.testing import Cluster, FakeDetection
from sluiceway_runtime.server.security import Security
from waiting import until

__all__ = ["IMAGE", "Http", "port_of", "serve"]

IMAGE = {"Content-Type": "image/jpeg"}
Run = Callable[[Job], AsyncGenerator[Addressed]]


class Http:
    """A port and a client of it."""

    def __init__(self, cluster: Cluster, port: HttpPort, jobs: Jobs, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.port = port
        self.jobs = jobs
        self.session = session

    @property
    def url(self) -> str:
        """Where the port is."""
        return f"http://127.0.0.1:{self.port.port}"

    async def until_free(self) -> None:
        """Wait until no byte is held: an answer is there a moment before its request is forgotten."""
        await until(lambda: not self.cluster.service.budget.used_bytes)

    async def post(self, data: bytes, path: str = "/v1/process", **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, and events or problem."""
        async with self.session.post(self.url + path, data=io.BytesIO(data), headers=headers) as response:
            text = await response.text()
            if response.content_type == "application/x-ndjson":
                return response.status, response.headers, [json.loads(line) for line in text.splitlines()]
            return response.status, response.headers, json.loads(text)


def port_of(
    cluster: Cluster, config: OrchestratorConfig, http: HttpConfig, run: Run, security: Security | None = None
) -> HttpPort:
    """A port that is not started, with the pipelines and the budget of a cluster."""
    pipelines = cluster.service.executor._pipelines
    return HttpPort(
        config,
        http,
        limits=JobLimits(pipelines, config.default_pipeline, max_sources=config.max_sources),
        budget=cluster.service.budget,
        run=run,
        describe=lambda: '{"server_version": "test"}',
        security=security,
    )


@asynccontextmanager
async def serve(
    http: dict[str, Any] | None = None,
    security: Security | None = None,
    detector: FakeDetection | None = None,
    **options: Any,
) -> AsyncIterator[Http]:
    """Start a port; `http` has its keys, `options` those of `[orchestrator]`."""
    config = OrchestratorConfig.model_validate(options)
    async with Cluster([detector or FakeDetection()], **options) as cluster:
        jobs = Jobs(config, cluster.service.executor, cluster.service.budget)
        port = port_of(cluster, config, HttpConfig(port=0, **(http or {})), jobs.run, security)
        await port.start()
        try:
            async with aiohttp.ClientSession() as session:
                yield Http(cluster, port, jobs, session)
        finally:
            await port.close()
