"""A server from start to end: first the operations port, then gRPC, then the service; and back in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from sluiceway_runtime.config import ServerConfig, StageConfig
from sluiceway_runtime.metrics.calls import CallMetrics
from sluiceway_runtime.metrics.registry import AnsweringRegistry
from sluiceway_runtime.metrics.server import LoopLag, ServerCollector, show_process
from sluiceway_runtime.pool import Placement, PoolStatistics
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.budget import memory_budget
from sluiceway_runtime.server.documentation import documented_pool
from sluiceway_runtime.server.door import Door
from sluiceway_runtime.server.health import HealthServicer
from sluiceway_runtime.server.interceptor import CallInterceptor
from sluiceway_runtime.server.lifecycle import Lifecycle, State
from sluiceway_runtime.server.listening import SharedPorts, bind, make_server
from sluiceway_runtime.server.operations import OperationsPort
from sluiceway_runtime.server.readiness import Readiness
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.tracing import Tracer
from sluiceway_runtime.watch import Sampler
from sluiceway_runtime.watch.gpus import Gpus
from sluiceway_runtime.watch.servicer import SERVICE as SAMPLES
from sluiceway_runtime.watch.servicer import add_samples

__all__ = ["Server", "Service"]

log = logging.getLogger(__name__)

# What is left for gRPC itself once no call of ours is running: health watchers hold their streams open for ever.
STOP_GRACE_S = 0.2


class Service(Protocol):
    """What a stage or the orchestrator gives to the runtime.

    Attributes:
        names: full gRPC service names, for health and reflection.

    It may have besides:

    - `group: str`, the version of what it serves: a call that asks for another is refused before it is read.
    - `use_recorder(recorder: Recorder) -> None`, called before anything else: what becomes of requests is noted there.
    - `use_tracer(tracer: Tracer) -> None`, called then, where there are traces.
    - `use_budget(budget: MemoryBudget) -> None`, called next: what it holds, it reserves there.
    - `class_of(client: str, asked: Priority) -> Priority`: the class in which a client is served that asks for one.
    - `pool: Pool | None`, its queue and workers, once it has them: samples tell of them, and when it becomes able or
      unable to work `ready` is asked anew.
    - `use_samples(sample: Callable[[], ServerSample]) -> None`, called once: a sample of the server that it is in.
    - `problems: Sequence[str]`, what is wrong and does not keep it from working; `/readyz` shows it.
    """

    names: tuple[str, ...]

    async def start(self) -> None:
        """Load and warm up; the server is READY when this returns. Raises StartupError."""

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers. Called before `start`."""

    def collectors(self, registry: CollectorRegistry) -> None:
        """Add metrics. Called after `register`; they are asked from then on, in every state of the service."""

    def ready(self) -> bool:
        """Whether it can take work now, once started (for example: is a worker alive)."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What `/statusz` shows; JSON. No secrets, no contents."""
        ...

    def refuse(self) -> None:
        """Take nothing new that does not come by gRPC, whose calls are refused from now on. `drain` follows."""

    async def drain(self, grace_s: float) -> bool:
        """Finish what was accepted, at most `grace_s`, and return whether all is; called when no call runs any more."""
        ...

    async def close(self) -> None:
        """Release everything. Called once, after any state, also when `start` failed."""


class Server:
    """Runs one service.

    Args:
        service: what is served.
        config: where, and within which limits.
        security: who may call; by default everybody.
        section: name of the server's section, by which `security.mutual` names it.
        recorder: remembers the latest requests; by default one of its own.
        tracer: of requests, if traces are wanted. The caller closes it.
        shared: ports that it shares with a server that it replaces, or that replaces it. Where they are others than its
            own it listens there once it is ready, and at its own gRPC port as well.

    Attributes:
        waits: whether calls wait at the door for room; those of a stage are refused, and tried with another replica.
            Likewise a stage begins no trace by itself: whether there is one is decided once, by who calls it.
        budget: the bytes that the server may hold.
        recorder: what it remembers of the latest requests.
        port: gRPC port, once started.
        operations_port: HTTP port, once started.
    """

    def __init__(
        self,
        service: Service,
        config: ServerConfig,
        security: Security | None = None,
        section: str = "",
        *,
        recorder: Recorder | None = None,
        tracer: Tracer | None = None,
        shared: SharedPorts | None = None,
    ) -> None:
        self._service = service
        self._shared = shared
        self._config = config
        self._security = security or Security()
        self._section = section
        self.lifecycle = Lifecycle()
        self.registry: CollectorRegistry = AnsweringRegistry()
        self.waits = not isinstance(config, StageConfig)
        self.budget = memory_budget(config)
        self.recorder = recorder or Recorder(config.remember_requests)
        if (use_recorder := getattr(service, "use_recorder", None)) is not None:
            use_recorder(self.recorder)
        if tracer is not None and (use_tracer := getattr(service, "use_tracer", None)) is not None:
            use_tracer(tracer)
        self.registry.register(
            ServerCollector(
                section, lambda: ([state.value for state in State], self.lifecycle.state.value), self.ready, self.budget
            )
        )
        self._readiness = Readiness(self.ready, self._announce, busy=self._was_busy, lag=LoopLag(self.registry))
        self._calls_seen = 0
        if (use_budget := getattr(service, "use_budget", None)) is not None:
            use_budget(self.budget)
        self._door = Door(
            self.lifecycle,
            self._security,
            self.budget,
            config,
            waits=self.waits,
            group=lambda: getattr(service, "group", ""),
            class_of=getattr(service, "class_of", lambda _, asked: asked),
        )
        self._interceptor = CallInterceptor(
            self._door,
            CallMetrics(self.registry),
            self.recorder,
            tracer,
            begins_traces=self.waits,
            access_log=config.access_log,
        )
        self._sampler = Sampler(
            state=lambda: self.lifecycle.state.value,
            budget=self.budget,
            pool=self._pool_statistics,
            calls=self._interceptor.durations,
            gpus=Gpus(self._placements).samples,
        )
        if (use_samples := getattr(service, "use_samples", None)) is not None:
            use_samples(self._sampler.sample)
        self._health = HealthServicer(self.recorder.instance)
        self._operations = OperationsPort(
            self.lifecycle, self.ready, self.registry, self._status, lambda: getattr(service, "problems", ())
        )
        self._grpc: grpc.aio.Server | None = None
        # Run in reverse, each whatever becomes of the others.
        self._to_close = AsyncExitStack()
        self._to_close.push_async_callback(self._operations.close)
        self._to_close.callback(self._end_life)
        self._to_close.push_async_callback(service.close)
        self._monitor: asyncio.Task[None] | None = None
        self._leaving = False
        self.port = 0
        self.operations_port = 0

    def ready(self) -> bool:
        """Whether the server should be given work now; no more from the moment it is told to stop."""
        return self.lifecycle.state is State.READY and not self._leaving and self._service.ready()

    async def start(self) -> None:
        """Listen, load, and become READY.

        Probes and health checks are answered from the first moment; calls are refused as UNAVAILABLE until READY.

        Raises:
            StartupError: the server is FAILED; call `close`.
        """
        self.lifecycle.to(State.STARTING)
        try:
            self.operations_port = await self._operations.start(
                self._config.host, self._config.operations_port, shares_port=self._shared is not None
            )
            self._grpc = self._make_grpc([self._interceptor])
            self._to_close.push_async_callback(self._grpc.stop, STOP_GRACE_S)
            self._service.register(self._grpc)
            self._show()
            add_samples(self._grpc, self._sampler.sample)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
            await self._announce(False)
            if self._config.reflection:
                names = (*self._service.names, SAMPLES, health.SERVICE_NAME, reflection.SERVICE_NAME)
                reflection.enable_server_reflection(names, self._grpc, documented_pool())
            # Where another serves meanwhile, nobody is to meet one that cannot.
            serves_first = self._shared is not None and self._shared.port != self._config.port
            if serves_first:
                await self._service.start()
            await self._listen(self._grpc)
            if not serves_first:
                await self._service.start()
        except BaseException:
            self.lifecycle.to(State.FAILED)
            raise
        self.lifecycle.to(State.READY)
        if (pool := getattr(self._service, "pool", None)) is not None:
            pool.able_changed = self._readiness.changed
        self._monitor = asyncio.create_task(self._readiness.watch(), name="readiness")
        log.info("ready")

    async def _listen(self, server: grpc.aio.Server) -> None:
        host, shared = self._config.host, self._shared
        self.port = self._bind(server, self._config.port)
        if shared is not None and shared.port != self._config.port:
            self._bind(server, shared.port)
            await self._operations.listen_also(host, shared.operations_port, shares_port=True)
        await server.start()
        log.info("listening on %s:%d, operations on %d", host, self.port, self.operations_port)

    def _show(self) -> None:
        """Add what there is to measure of the process and of the service; the simulated server overrides this."""
        show_process(self.registry, self._security.config.certificate)
        self._service.collectors(self.registry)

    def _make_grpc(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
        """What calls come through; the simulated server overrides this, and `_bind`."""
        return make_server(self._config, interceptors, waits=self.waits, shares_port=self._shared is not None)

    def _bind(self, server: grpc.aio.Server, port: int) -> int:
        """Take an address; returns its port."""
        return bind(server, self._config, self._security.server_credentials(self._section), port=port)

    async def stop(self) -> bool:
        """Drain and close; returns whether everything that was accepted has been answered.

        Health turns NOT_SERVING and `/readyz` 503 first, and calls are still taken for `drain_notice_s`, so that
        clients that watch either move on before anything is refused.
        """
        try:
            return await self._drain() if self.lifecycle.state is State.READY else True
        finally:
            await self.close()

    async def _drain(self) -> bool:
        deadline = asyncio.get_running_loop().time() + self._config.drain_grace_s
        clean = True
        self._leaving = True
        if self._monitor is not None:
            self._monitor.cancel()
        await self._announce(False)
        await asyncio.sleep(min(self._config.drain_notice_s, self._config.drain_grace_s))
        self.lifecycle.to(State.DRAINING)
        self._door.refuse_waiting()
        self._service.refuse()
        log.info("draining %d calls", self._interceptor.running)
        farewell = asyncio.create_task(self._say_goodbye(), name="farewell")
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._interceptor.wait_idle()
            except TimeoutError:
                clean = False
                log.warning("%d calls did not finish in time", self._interceptor.running)
            return clean & await self._service.drain(max(0.0, deadline - asyncio.get_running_loop().time()))
        finally:
            farewell.cancel()
            await asyncio.wait((farewell,))

    async def _say_goodbye(self) -> None:
        """Stop listening, and tell connected clients to call elsewhere (GOAWAY) while their running calls go on.

        Without it a client behind a balancer of connections would stay, and be refused, for as long as the longest call
        of anybody runs. Never returns early: open health watches keep it waiting, so it is cancelled.
        """
        assert self._grpc is not None
        await self._grpc.stop(self._config.drain_grace_s)

    async def close(self) -> None:
        """Release everything at once, whatever the state; what cannot be released keeps nothing else."""
        if self._monitor is not None:
            self._monitor.cancel()
            self._monitor = None
        await self._to_close.aclose()
        log.info("stopped")

    def _end_life(self) -> None:
        if self.lifecycle.state is State.DRAINING:
            self.lifecycle.to(State.STOPPED)
        elif self.lifecycle.state not in (State.FAILED, State.STOPPED, State.NEW):
            self.lifecycle.to(State.FAILED)

    def _pool_statistics(self) -> PoolStatistics | None:
        pool = getattr(self._service, "pool", None)
        return pool.statistics() if pool is not None else None

    def _placements(self) -> Sequence[Placement]:
        pool = getattr(self._service, "pool", None)
        return pool.placements if pool is not None else ()

    def _status(self) -> Mapping[str, Any]:
        memory = {
            "limit_bytes": self.budget.total_bytes,
            "held_bytes": self.budget.used_bytes,
            "waiting": self.budget.waiting,
        }
        return {"memory": memory, **self._service.status()}

    def _was_busy(self) -> bool:
        """Whether there is work, or was since this was last asked. What comes by HTTP shows in its bytes."""
        before, self._calls_seen = self._calls_seen, self._interceptor.begun
        return self._interceptor.running > 0 or self.budget.used_bytes > 0 or self._calls_seen != before

    async def _announce(self, serving: bool) -> None:
        kinds = health_pb2.HealthCheckResponse
        state = kinds.SERVING if serving else kinds.NOT_SERVING
        for name in ("", *self._service.names):
            await self._health.set(name, state)
