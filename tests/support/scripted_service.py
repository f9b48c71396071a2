"""A service that does nothing but what each test asks of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import grpc
import grpc.aio
from prometheus_client import CollectorRegistry
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server.app import Server

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc

__all__ = ["CONFIG", "NAME", "Scripted", "get"]


NAME = "sluiceway.detection.v1.DetectionService"
CONFIG = ServerConfig(port=0, operations_port=0, drain_grace_s=5, drain_notice_s=0)


class Scripted(detection_pb2_grpc.DetectionServiceServicer, recognition_pb2_grpc.RecognitionServiceServicer):
    """A service whose answers are functions that tests set."""

    names = (NAME, "sluiceway.recognition.v1.RecognitionService")

    def __init__(self) -> None:
        self.starting: Callable[[], Awaitable[None]] = self._nothing
        self.detect: Callable[[Any], Awaitable[Any]] = self._empty
        self.closed_streams = 0
        self.refuses = False
        self.drained_s: float | None = None
        self.drains = True
        self.closed = 0
        self.is_ready = True

    async def _nothing(self) -> None: ...

    async def _empty(self, _: Any) -> Any:
        return detection_pb2.DetectResponse(width=1)

    async def Detect(self, request: Any, context: Any) -> Any:
        return await self.detect(context)

    async def Describe(self, request: Any, context: Any) -> Any:
        return detection_pb2.DescribeResponse(server_version="test")

    async def Recognize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield recognition_pb2.RecognizeResponse()
            await asyncio.sleep(30)
        finally:
            self.closed_streams += 1

    async def start(self) -> None:
        await self.starting()

    def register(self, server: grpc.aio.Server) -> None:
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(self, server)
        recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(self, server)

    def collectors(self, registry: CollectorRegistry) -> None: ...

    def ready(self) -> bool:
        return self.is_ready

    def status(self) -> Mapping[str, Any]:
        return {"answer": 42}

    def refuse(self) -> None:
        self.refuses = True

    async def drain(self, grace_s: float) -> bool:
        self.drained_s = grace_s
        return self.drains

    async def close(self) -> None:
        self.closed += 1


async def get(server: Server, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.operations_port}{path}") as response,
    ):
        return response.status, await response.text()
