"""A service whose calls are held, behind the door of a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.config import ServerConfig, StageConfig
from sluiceway_runtime.errors import (
    SluicewayError,
)
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.door import current_account
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

__all__ = [
    "MIB",
    "OPTIONS",
    "ORCHESTRATOR",
    "PREFIX",
    "STAGE",
    "Held",
    "Metadata",
    "call",
    "counted",
    "refusal",
    "scrape",
    "serving",
]


MIB = 2**20
PREFIX = "/sluiceway.t.v1.T/"
# A message of 10 MiB is 20 MiB while it is read. In the normal class there is room for 54 MiB at the door of the
# orchestrator, and for 90 at a stage's.
LIMITS = {"memory_bytes": 100 * MIB, "max_message_bytes": 10 * MIB, "port": 0, "operations_port": 0}
ORCHESTRATOR = ServerConfig(**LIMITS, drain_notice_s=0)
STAGE = StageConfig(**LIMITS, drain_notice_s=0)
OPTIONS = [("grpc.max_send_message_length", -1)]

Metadata = tuple[tuple[str, str], ...]


class Held:
    """A service whose calls are held until the test lets them go, and which knows what each had read."""

    names = ("sluiceway.t.v1.T",)
    group = ""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.go = asyncio.Event()
        self.budget: MemoryBudget | None = None
        self.started = asyncio.Event()
        self.started.set()

    def use_budget(self, budget: MemoryBudget) -> None:
        self.budget = budget

    async def _unary(self, request: bytes, _context: Any) -> bytes:
        self.read.append(len(request))
        account = current_account.get()
        assert account is not None
        await self.go.wait()
        return str(account.held_bytes).encode()

    async def _stream_unary(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        account = current_account.get()
        assert account is not None
        seen = [f"{account.held_bytes}"]
        async for request in requests:
            self.read.append(len(request))
            seen.append(f"{account.held_bytes}")
        return " ".join(seen).encode()

    async def _unary_stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        self.read.append(len(request))
        yield b"first"
        await self.go.wait()

    async def _stream_stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.read.append(len(request))
            yield request[:1]

    async def start(self) -> None:
        await self.started.wait()

    def register(self, server: grpc.aio.Server) -> None:
        methods = {
            "U": grpc.unary_unary_rpc_method_handler(self._unary),
            "SU": grpc.stream_unary_rpc_method_handler(self._stream_unary),
            "US": grpc.unary_stream_rpc_method_handler(self._unary_stream),
            "SS": grpc.stream_stream_rpc_method_handler(self._stream_stream),
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Strict": grpc.unary_unary_rpc_method_handler(self._unary, request_deserializer=int),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.names[0], methods),))

    async def _describe(self, request: bytes, _context: Any) -> bytes:
        return str(len(request)).encode()

    def collectors(self, registry: CollectorRegistry) -> None:
        registry.register(Broken(self))  # type: ignore[arg-type]

    def ready(self) -> bool:
        return True

    def status(self) -> Mapping[str, Any]:
        return {}

    def refuse(self) -> None: ...

    async def drain(self, grace_s: float) -> bool:
        return True

    async def close(self) -> None: ...


class Broken:
    """A collector of a service that cannot be asked before it has started."""

    def __init__(self, service: Held) -> None:
        self._service = service

    def collect(self) -> list[Any]:
        assert self._service.started.is_set()
        return []


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig, service: Held, security: Security | None = None
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    server = Server(service, config, security)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
            yield server, channel
        await until(lambda: server.budget.used_bytes == 0)
        assert server.budget.waiting == 0
    finally:
        await server.close()


def counted(code: str, method: str) -> str:
    """The series of calls of a method that ended with a code."""
    name = method if method == "other" else f"{PREFIX.strip('/')}/{method}"
    return f'rpc_server_call_duration_seconds_count{{rpc_method="{name}",rpc_response_status_code="{code}"}}'


async def scrape(server: Server) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.operations_port}/metrics") as response,
    ):
        assert response.status == 200
        return await response.text()


def call(
    channel: grpc.aio.Channel,
    size_bytes: int,
    *,
    declared: int | None = -1,
    priority: str | None = None,
    method: str = "U",
    metadata: Metadata = (),
    timeout: float = 60,
) -> Any:
    """Send so many bytes, and say so unless told otherwise."""
    if declared == -1:
        declared = size_bytes
    if declared is not None:
        metadata += (("sluiceway-request-bytes", str(declared)),)
    if priority is not None:
        metadata += (("sluiceway-priority", priority),)
    return channel.unary_unary(PREFIX + method)(bytes(size_bytes), metadata=metadata, timeout=timeout)


async def refusal(answer: Awaitable[Any]) -> SluicewayError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return from_rpc_error(caught.value)
