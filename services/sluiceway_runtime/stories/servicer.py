"""`sluiceway.recorder.v1.RecorderService` of any server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from sluiceway.recorder.v1 import recorder_pb2 as pb
from sluiceway.recorder.v1 import recorder_pb2_grpc
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.stories.convert import server_story

__all__ = ["SERVICE", "add_stories", "serve_stories"]

SERVICE = "sluiceway.recorder.v1.RecorderService"

Context = grpc.aio.ServicerContext[Any, Any]
Told = Callable[[str], Awaitable[pb.ExplainResponse]]


def add_stories(server: grpc.aio.Server, recorder: Callable[[], Recorder], name: str) -> None:
    """Let a stage's server tell what it remembers; its service's `names` must have `SERVICE`, too.

    Args:
        server: that is not started.
        recorder: of the server.
        name: of the stage.
    """

    async def tell(request_id: str) -> pb.ExplainResponse:
        return pb.ExplainResponse(servers=[server_story(recorder(), name, request_id, monotonic())])

    serve_stories(server, tell)


def serve_stories(server: grpc.aio.Server, tell: Told) -> None:
    """Answer `Explain` with what a function tells of a request, by its id."""
    recorder_pb2_grpc.add_RecorderServiceServicer_to_server(_Stories(tell), server)


class _Stories(recorder_pb2_grpc.RecorderServiceServicer):
    def __init__(self, tell: Told) -> None:
        self._tell = tell

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:  # noqa: N802, ARG002
        """Tell what is remembered of a request; see the contract."""
        return await self._tell(request.request_id)
