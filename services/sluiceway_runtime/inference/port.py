"""The HTTP port of a stage: the Open Inference Protocol under `/v2`, and nothing else."""

from __future__ import annotations

from aiohttp import web

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.config import StageConfig
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.http.body import JSON_COPIES, json_limit_bytes, take_body
from sluiceway_runtime.http.port import PublicPort
from sluiceway_runtime.http.remembering import remembered
from sluiceway_runtime.inference.http_routes import HEALTH_PATHS, OpenInference
from sluiceway_runtime.inference.models import Models
from sluiceway_runtime.inference.stage import InferenceStage
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.calls import Caller, current_request_id
from sluiceway_runtime.server.security import Security

__all__ = ["InferencePort"]


class InferencePort(PublicPort):
    """Serves the models of a stage, beside gRPC: the same models, options, limits and errors.

    Args:
        stage: what is served.
        models: of the stage; what comes here counts with what comes by gRPC.
        config: of the stage; its `http` says where to listen.
        name: of the stage, as `security.mutual` has it.
        section: of the configuration.
        budget: of the server.
        security: TLS and tokens, those of gRPC.
        recorder: remembers the latest requests.
        shares_port: whether a server that replaces this one may listen there as well.
    """

    def __init__(
        self,
        stage: InferenceStage,
        models: Models,
        config: StageConfig,
        *,
        name: str,
        section: str,
        budget: MemoryBudget,
        security: Security | None,
        recorder: Recorder,
        shares_port: bool = False,
    ) -> None:
        super().__init__(
            config.http,
            section=name,
            key=f"{section}.http",
            limit_bytes=json_limit_bytes(config.max_message_bytes),
            budget=budget,
            security=security,
            open_paths=HEALTH_PATHS,
            access_log=config.access_log,
            shares_port=shares_port,
        )
        self._deadline_s = config.default_deadline_s
        self._recorder = recorder
        self._inference = OpenInference(stage, models)

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        return self._inference.routes(self._infer, self.client_of)

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        with remembered(request, self._recorder):
            return await self._run(request)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        async with self.admitted(request) as admitted:
            deadline = Deadline.after(self._deadline_s)
            body = await take_body(request, self._limit_bytes, deadline, admitted.account, copies=JSON_COPIES)
            caller = Caller(admitted.neighbour, deadline, current_request_id.get())
            return await self._inference.infer(request, body, caller)
