"""Server processes of a simulated cluster: the runtime's own server on an address in memory, which can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server.app import Server, Service

from sluiceway_simulation.machine import compute
from sluiceway_simulation.network.network import Network
from sluiceway_simulation.network.server import MemoryServer
from sluiceway_simulation.stages.service import StageService
from sluiceway_simulation.stages.worker import Workbench

__all__ = ["Process", "SimulatedServer"]

# Calls that are bound to a version.
_BOUND_METHODS = ("/Detect", "/Recognize", "/RecognizeWhole")


class _NoPort:
    """Nobody asks for metrics."""

    async def start(self, host: str, port: int, *, shares_port: bool) -> int:
        del host, port, shares_port
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class _VersionWatch(grpc.aio.ServerInterceptor):
    """Stands behind the door: what is served here for another version was let in by mistake.

    gRPC asks for the handler of a call before the door has decided on it. So a call for another version is no fault
    yet, which may come to an address that has changed hands; one that is served is.
    """

    def __init__(self, service: Any) -> None:
        self._service = service

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        wanted = dict(details.invocation_metadata).get("sluiceway-group")
        if not details.method.endswith(_BOUND_METHODS) or wanted == self._service.group:
            return handler

        def accuse(_request: Any, _context: Any) -> Any:
            fault = f"a call for version {wanted} was served by one of {self._service.group}"
            self._service.bench.watched(fault)
            raise RuntimeError(fault)

        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(accuse, handler.request_deserializer, handler.response_serializer)


class _FrontTime(grpc.aio.ServerInterceptor):
    """The time that a front takes for a call, before the stage's own code has it."""

    def __init__(self, bench: Workbench, seconds: float) -> None:
        self._bench = bench
        self._seconds = seconds
        self._thread = asyncio.Lock()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        if details.method.endswith(_BOUND_METHODS):
            async with self._thread:
                self._bench.front_busy_s += self._seconds
                await compute(self._bench.machine, self._seconds)
        return await continuation(details)


class SimulatedServer(Server):
    """The real server, listening in memory."""

    def __init__(self, service: Service, config: ServerConfig, network: Network, address: str) -> None:
        super().__init__(service, config)
        self._operations = _NoPort()  # type: ignore[assignment]
        self._network = network
        self._address = address
        self.memory: MemoryServer | None = None

    def _show(self) -> None:
        """Nobody looks, and there are thousands of servers to a process."""

    def _make_grpc(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
        ours: list[grpc.aio.ServerInterceptor] = []
        if isinstance(self._service, StageService):
            if self._service.is_watched:
                ours.append(_VersionWatch(self._service))
            if front_ms := self._service.plan.front_ms:
                ours.append(_FrontTime(self._service.bench, front_ms / 1000))
        self.memory = MemoryServer([*interceptors, *ours])
        return self.memory  # type: ignore[return-value]  # what is used of one

    def _bind(self, server: grpc.aio.Server, port: int) -> int:
        del server, port
        assert self.memory is not None
        self._network.servers[self._address] = self.memory
        return int(self._address.rpartition(":")[2])


class Process:
    """One server from its start to its end, whichever that is.

    Attributes:
        server: the server.
        address: `host:port`.
        ended: whether nothing of it runs any more.
    """

    def __init__(self, service: Any, config: ServerConfig, network: Network, host: str) -> None:
        self.address = f"{host}:{config.port}"
        self.host = host
        self.service = service
        self.server = SimulatedServer(service, config, network, self.address)
        self.killed = False
        self._work: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.address} {self.server.lifecycle.state.value}>"

    def start(self) -> None:
        """Begin to start."""
        self._work = asyncio.create_task(self.server.start(), name=f"start {self.address}")

    async def started(self) -> None:
        """Wait until it is ready. Raises StartupError."""
        assert self._work is not None
        await asyncio.shield(self._work)

    def terminate(self) -> None:
        """SIGTERM: it drains and ends by itself."""
        self._work = asyncio.create_task(self._stop(self._work), name=f"stop {self.address}")

    def kill(self) -> None:
        """SIGKILL: from this moment on nothing is heard of it. What it held is taken apart out of sight."""
        self.killed = True
        if self.server.memory is not None:
            self.server.memory.break_off()
        self.service.vanish()
        self._work = asyncio.create_task(self._close(self._work), name=f"bury {self.address}")

    async def ended(self) -> None:
        """Wait until nothing of it is left."""
        if self._work is not None:
            await asyncio.wait((self._work,))

    async def _stop(self, starting: asyncio.Task[Any] | None) -> None:
        if starting is not None and not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            await self.server.close()
            return
        await self.server.stop()

    async def _close(self, before: asyncio.Task[Any] | None) -> None:
        if before is not None and not before.done():
            before.cancel()
            await asyncio.wait((before,))
        await self.server.close()
