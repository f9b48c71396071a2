"""The embedded cluster: the servers of one machine with one owner, who starts, watches and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from sluiceway_runtime.logs import message_of

from sluiceway_cluster.process import LogCallback, ServerProcess, ServerSpec
from sluiceway_cluster.scaling import service_of

__all__ = ["Cluster", "ClusterError", "ServerState", "last_words"]

PROBE_INTERVAL_S = 0.05
# A server that keeps dying is not helped by starting it for ever.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0
FIRST_RESTART_DELAY_S = 0.5
# Stop first: they take no more jobs and finishes those it has while the stages still serve them.
FIRST_TO_STOP = "orchestrator"
PARENT_PIPE = "SLUICEWAY_PARENT_PIPE"


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a display shows of one server."""

    name: str
    state: Literal["starting", "ready", "died", "stopping", "stopped"]
    detail: str = ""


StateCallback = Callable[[ServerState], None]


class ClusterError(Exception):
    """The cluster cannot start or go on; the message has the dead server's last lines."""


class Cluster:
    """Runs the servers.

    Args:
        specs: what to run.
        on_state: told of every change.
        on_log: told every line that a server writes.

    Resource handling: leaving `async with` stops every server, orchestrator first. If this process dies without that,
    the servers notice the end of a pipe and stop by themselves.
    """

    def __init__(
        self,
        specs: Sequence[ServerSpec],
        *,
        on_state: StateCallback = lambda _: None,
        on_log: LogCallback = lambda _name, _line: None,
    ) -> None:
        self._specs = specs
        self._on_state = on_state
        self._on_log = on_log
        self._servers: dict[str, ServerProcess] = {}
        # Those that will take the place of others, and those whose place was taken: each has one owner, who stops it.
        self._beside: set[ServerProcess] = set()
        # Set when another server has the place of the one of that name; the next one has a new event.
        self._taken = {spec.name: asyncio.Event() for spec in specs}
        self._restarts: dict[str, list[float]] = {spec.name: [] for spec in specs}
        self._pipe: tuple[int, int] | None = None

    @property
    def servers(self) -> Mapping[str, ServerProcess]:
        """Those that serve, by name."""
        return self._servers

    @property
    def pids(self) -> dict[str, int | None]:
        """Process ids of the servers by name."""
        return {name: server.pid for name, server in self._servers.items()}

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all servers at once and return when every one takes work.

        That may take as long as they allow themselves: one that compiles for a GPU takes many minutes, and each ends
        itself when its own `start_timeout_s` has passed.

        Raises:
            ClusterError: one died, or a port is taken.
        """
        _require_free_ports(self._specs)
        self._pipe = os.pipe()
        # Servers first import and load for seconds; none has to wait for another to do so.
        async with asyncio.TaskGroup() as group:
            for spec in self._specs:
                group.create_task(self._launch(spec))
        await self._wait_all_ready(self._servers.values())

    async def start_beside(self, specs: Sequence[ServerSpec]) -> list[ServerProcess]:
        """Start servers that will take the place of those with their names; returns when every one takes work.

        Raises:
            ClusterError: one died. None of them is left, and those that serve go on.
        """
        fresh = [self._process(spec) for spec in specs]
        self._beside.update(fresh)
        try:
            async with asyncio.TaskGroup() as group:
                for server in fresh:
                    group.create_task(self._begin(server))
            await self._wait_all_ready(fresh)
        except BaseException:
            await self.stop_beside(fresh)
            raise
        return fresh

    def take_over(self, fresh: Sequence[ServerProcess]) -> list[ServerProcess]:
        """From now on these serve under their names; returns those that did, for `stop_beside`."""
        former = [self._servers[server.spec.name] for server in fresh]
        for server in fresh:
            self._servers[server.spec.name] = server
            self._restarts[server.spec.name] = []
            self._taken[server.spec.name].set()
            self._taken[server.spec.name] = asyncio.Event()
        self._beside.difference_update(fresh)
        self._beside.update(former)
        return former

    async def stop_beside(self, servers: Sequence[ServerProcess]) -> None:
        """Stop servers that do not serve under their names."""
        await asyncio.gather(*(server.stop() for server in servers))
        self._beside.difference_update(servers)

    async def _wait_all_ready(self, servers: Iterable[ServerProcess]) -> None:
        waits = [asyncio.create_task(self._wait_ready(server)) for server in servers]
        try:
            await asyncio.gather(*waits)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _launch(self, spec: ServerSpec) -> ServerProcess:
        server = self._servers[spec.name] = self._process(spec)
        await self._begin(server)
        return server

    def _process(self, spec: ServerSpec) -> ServerProcess:
        assert self._pipe is not None
        return ServerProcess(
            replace(spec, environment={**spec.environment, PARENT_PIPE: str(self._pipe[0])}), self._on_log
        )

    async def _begin(self, server: ServerProcess) -> None:
        assert self._pipe is not None
        self._on_state(ServerState(server.spec.name, "starting"))
        await server.start(self._pipe[0])

    async def _wait_ready(self, server: ServerProcess) -> None:
        name = server.spec.name
        while True:
            if server.exit_code is not None:
                code = await server.wait()
                self._on_state(ServerState(name, "died"))
                raise ClusterError(last_words(server, f"the {name} server could not start (exit code {code})"))
            ready, state = await server.probe()
            if ready:
                took_s = time.monotonic() - server.started_at_s
                self._on_state(ServerState(name, "ready", f"{took_s:.1f} s, {server.spec.address}"))
                return
            # What it last logged says best what it is at.
            said = message_of(server.last_lines[-1]) if server.last_lines else state
            self._on_state(ServerState(name, "starting", said))
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def watch(self) -> None:
        """Replace servers that die, until cancelled.

        Raises:
            ClusterError: one died too often.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for spec in self._specs:
                    group.create_task(self._watch_one(spec.name))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None

    async def _watch_one(self, name: str) -> None:
        while True:
            server, code = await self._end_of(name)
            words = last_words(server, f"the {name} server died (exit code {code})")
            self._on_state(ServerState(name, "died", words))
            now = time.monotonic()
            recent = [at for at in self._restarts[name] if now - at < RESTART_WINDOW_S]
            if len(recent) >= MAX_RESTARTS:
                raise ClusterError(f"{words}\nIt died {MAX_RESTARTS + 1} times within {RESTART_WINDOW_S:.0f} s.")
            self._restarts[name] = [*recent, now]
            await asyncio.sleep(FIRST_RESTART_DELAY_S * 2 ** len(recent))
            await server.stop()
            if server is not self._servers[name]:
                continue
            server = await self._launch(server.spec)
            # One that dies again is counted by the next turn of the loop.
            with contextlib.suppress(ClusterError):
                await self._wait_ready(server)

    async def _end_of(self, name: str) -> tuple[ServerProcess, int]:
        """Wait until the server that has a name ends by itself; returns it, and its exit code.

        One whose place is taken meanwhile is stopped by whoever saw to that.
        """
        while True:
            server, taken = self._servers[name], self._taken[name]
            ending, leaving = asyncio.create_task(server.wait()), asyncio.create_task(taken.wait())
            try:
                await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                ending.cancel()
            if not taken.is_set():
                return server, ending.result()

    async def stop(self) -> None:
        """Stop every server in order; waits for what they have accepted."""
        running = [*self._servers.values(), *self._beside]
        stages = [server for server in running if service_of(server.spec.name) != FIRST_TO_STOP]
        first = [server for server in running if service_of(server.spec.name) == FIRST_TO_STOP]
        for servers in (first, stages):
            for server in servers:
                self._on_state(ServerState(server.spec.name, "stopping"))
            await asyncio.gather(*(server.stop() for server in servers))
            for server in servers:
                self._on_state(ServerState(server.spec.name, "stopped"))
        if self._pipe:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    def kill(self) -> None:
        """End every server at once, for a second Ctrl-C. `stop` must still follow."""
        for server in (*self._servers.values(), *self._beside):
            server.signal(signal.SIGKILL)


def _require_free_ports(specs: Sequence[ServerSpec]) -> None:
    """Refuse to start where others listen: their probes would answer for servers that are dying of it."""
    taken = []
    for spec in specs:
        host, _, port = spec.address.rpartition(":")
        places = {"port": (host.strip("[]"), int(port)), "operations_port": spec.operations}
        if spec.http is not None:
            places["http.port"] = spec.http
        for key, place in places.items():
            if _is_taken(*place):
                taken.append(f"port {place[1]} ({spec.section or spec.name}.{key}) is in use by another program")
    if taken:
        advice = "Is a cluster running? `sluiceway run --address` uses it; one beside it needs other ports configured."
        raise ClusterError("\n".join([*taken, advice]))


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return False
    except OSError as error:
        # Any other fault the server will tell better.
        return error.errno == errno.EADDRINUSE


def last_words(server: ServerProcess, headline: str) -> str:
    """What is to be said of a server that died, with what it said itself."""
    lines = [f"    {line}" for line in server.last_lines]
    return "\n".join([f"{headline}. Its last lines:", *lines]) if lines else f"{headline}; it wrote nothing."
