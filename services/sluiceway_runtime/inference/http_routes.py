"""The Open Inference Protocol over HTTP, under `/v2`, for Triton's and KServe's clients."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from sluiceway_runtime.errors import InvalidOption, SluicewayError, UnknownModel
from sluiceway_runtime.http.problem import headers_of, status_of
from sluiceway_runtime.inference import convert, http_json
from sluiceway_runtime.inference.models import EXTENSIONS, NO_MODEL_CONTROL, Models
from sluiceway_runtime.inference.stage import InferenceStage, Inferred, Parameter
from sluiceway_runtime.inference.tensors import ModelCard, Tensor
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.release import release
from sluiceway_runtime.server.calls import Caller

__all__ = ["HEALTH_PATHS", "OpenInference"]

# For whoever asks, by whatever name: load balancers do.
HEALTH_PATHS = ("/v2/health/live", "/v2/health/ready")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Check = Callable[[web.Request], object]
_MODEL = "/v2/models/{name}"
_BINARY = "binary_tensor_data"
_NO_TRACES = "traces and logs are those of the server's configuration"


class OpenInference:
    """Answers in the protocol's JSON; holds nothing between requests."""

    def __init__(self, stage: InferenceStage, models: Models) -> None:
        self._stage = stage
        self._models = models

    def routes(self, infer: Handler, check: Check) -> list[web.RouteDef]:
        """Where what is answered.

        Args:
            infer: admits a request to run a model, and calls `infer` of this.
            check: raises Unauthenticated unless who asks may.
        """
        routes = [
            web.get("/v2", _told(self._server, check)),
            web.get("/v2/", _told(self._server, check)),
            *(
                web.get(path, _told(answer))
                for path, answer in zip(HEALTH_PATHS, (self._live, self._ready), strict=True)
            ),
            web.get("/v2/models/stats", _told(self._stats, check)),
            web.post("/v2/repository/index", _told(self._index, check)),
        ]
        for model in (_MODEL, f"{_MODEL}/versions/{{version}}"):
            routes += [
                web.get(model, _told(self._metadata, check)),
                web.get(f"{model}/ready", _told(self._model_ready, check)),
                web.get(f"{model}/config", _told(self._config, check)),
                web.get(f"{model}/stats", _told(self._stats, check)),
                web.post(f"{model}/infer", _told(infer)),
            ]
        refused = {
            NO_MODEL_CONTROL: ("/v2/repository/models/{name}/{what:load|unload}",),
            convert.NO_SHARED_MEMORY: ("/v2/{kind:systemsharedmemory|cudasharedmemory}/region/{name}/register",),
            _NO_TRACES: ("/v2/trace/setting", "/v2/logging", f"{_MODEL}/trace/setting"),
        }
        for words, paths in refused.items():
            routes += [web.route("*", path, _told(partial(_refuse, words), check)) for path in paths]
        kind = "/v2/{kind:systemsharedmemory|cudasharedmemory}"
        for path in ("/status", "/region/{name}/status"):
            routes.append(web.get(kind + path, _told(_no_regions, check)))
        for path in ("/unregister", "/region/{name}/unregister"):
            routes.append(web.post(kind + path, _told(_nothing, check)))
        return routes

    async def infer(self, request: web.Request, body: bytearray, caller: Caller) -> web.Response:
        """Run a model.

        Raises:
            SluicewayError: it cannot be run, or failed.
        """
        asked = http_json.request_of(body, request.headers.get(http_json.HEADER), *_model_of(request))

        async def run(
            card: ModelCard, inputs: Mapping[str, Tensor], parameters: Mapping[str, Parameter], priority: Priority
        ) -> Inferred:
            return await self._stage.infer(card, inputs, parameters, priority, caller)

        answer, json_length = http_json.body_of(asked, await self._models.infer(asked.message, run))
        if json_length is None:
            return web.Response(body=answer, content_type="application/json")
        headers = {http_json.HEADER: str(json_length)}
        return web.Response(body=answer, content_type="application/octet-stream", headers=headers)

    async def _server(self, _: web.Request) -> web.Response:
        about = {"name": self._stage.name, "version": release(), "extensions": [*EXTENSIONS, _BINARY]}
        return web.json_response(about)

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._stage.ready() else 503)

    async def _metadata(self, request: web.Request) -> web.Response:
        return _json(http_json.plain(convert.metadata_of(self._models.card(*_model_of(request)))))

    async def _model_ready(self, request: web.Request) -> web.Response:
        name, wanted = _model_of(request)
        self._models.card(name, wanted)
        return web.Response(status=200 if self._models.ready(name, wanted) else 503)

    async def _config(self, request: web.Request) -> web.Response:
        return _json(http_json.plain(convert.config_of(self._models.card(*_model_of(request))).config))

    async def _stats(self, request: web.Request) -> web.Response:
        return _json(http_json.plain(self._models.statistics(*_model_of(request))))

    async def _index(self, request: web.Request) -> web.Response:
        text = await request.text()
        try:
            asked = json.loads(text) if text else {}
            ready_only = asked.get("ready", False) is True
        except (ValueError, AttributeError, RecursionError):
            raise InvalidOption("body: it is not a JSON table") from None
        return _json(http_json.plain(self._models.index(ready_only=ready_only))["models"])


def _model_of(request: web.Request) -> tuple[str, str]:
    return request.match_info.get("name", ""), request.match_info.get("version", "")


def _json(document: Any) -> web.Response:
    return web.json_response(document, dumps=partial(json.dumps, ensure_ascii=False))


async def _refuse(words: str, _: web.Request) -> web.Response:
    raise InvalidOption(words)


async def _no_regions(_: web.Request) -> web.Response:
    return web.json_response([])


async def _nothing(_: web.Request) -> web.Response:
    return web.Response()


def _told(handler: Handler, check: Check | None = None) -> Handler:
    """The handler with failures in the form that the protocol has for them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if check is not None:
                check(request)
            return await handler(request)
        except SluicewayError as error:
            status = 404 if isinstance(error, UnknownModel) else status_of(error.code, error.reason)
            return web.json_response({"error": error.message}, status=status, headers=headers_of(error))

    return handle
