"""One server process: started, probed, listened to, and stopped by whoever owns it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LogCallback", "ServerProcess", "ServerSpec"]

# Enough for a traceback or a list of configuration faults.
LAST_LINES = 30
PROBE_TIMEOUT_S = 1.0
# What a server may take beyond its own grace time before it is killed.
STOP_MARGIN_S = 10.0
KILL_WAIT_S = 5.0

LogCallback = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What to start.

    Attributes:
        name: of a stage, or orchestrator.
        module: run as `python -m MODULE`.
        address: its gRPC `host:port`, for people and clients.
        operations: `host` and port of its probes.
        environment: all variables of the process.
        config: configuration file, if one was named.
        grace_s: how long it may take to finish what it has accepted.
        arguments: of its command line, besides the configuration.
        http: host and port of its public HTTP port, if it has one.
        section: of its configuration; empty if it is called like the server.
    """

    name: str
    module: str
    address: str
    operations: tuple[str, int]
    environment: Mapping[str, str]
    config: Path | None
    grace_s: float
    arguments: tuple[str, ...] = ()
    http: tuple[str, int] | None = None
    section: str = ""


class ServerProcess:
    """A running server and its last words.

    Resource handling: `stop` must be called, also after the process ended by itself.
    """

    def __init__(self, spec: ServerSpec, on_log: LogCallback) -> None:
        self.spec = spec
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.started_at_s = time.monotonic()
        self._on_log = on_log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ServerProcess {self.spec.name} pid {self.pid} exit {self.exit_code}>"

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode if self._process else None

    async def start(self, parent_pipe: int) -> None:
        """Start it; `parent_pipe` is the descriptor whose end of file tells it that its parent is gone."""
        command = [sys.executable, "-m", self.spec.module, *self.spec.arguments]
        if self.spec.config:
            command += ["--config", str(self.spec.config)]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.spec.environment),
            pass_fds=(parent_pipe,),
            # Ctrl-C in the terminal must reach the owner alone: it stops the servers in order.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read_log(), name=f"log of {self.spec.name}")

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        # To the very end: a server whose pipe is full stops at its next line, with everything that it serves.
        while line := await _next_line(self._process.stdout):
            text = line.decode("utf-8", "replace").rstrip()
            self.last_lines.append(text)
            self._on_log(self.spec.name, text)

    async def probe(self) -> tuple[bool, str]:
        """Ask `/readyz`; returns whether it takes work, and its state in a word."""
        answered, body = await self._get("/readyz")
        return answered, body.strip().lower() or "starting"

    async def status(self) -> dict[str, Any] | None:
        """Ask `/statusz`; None if it does not answer."""
        answered, body = await self._get("/statusz")
        return json.loads(body) if answered else None

    async def _get(self, path: str) -> tuple[bool, str]:
        host, port = self.spec.operations
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                    answer = await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False, ""
        head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
        return head.partition(" ")[2].startswith("200"), body

    async def wait(self) -> int:
        """Wait until it ends and its log is read to the end; returns the exit code."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reader:
            # Workers that outlive the front for a moment hold the log open; do not wait for them.
            await asyncio.wait([self._reader], timeout=1.0)
        return code

    async def stop(self) -> None:
        """Ask it to finish, and kill it if it does not."""
        if self._process is None:
            return
        try:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.spec.grace_s + STOP_MARGIN_S)
        finally:
            self.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), KILL_WAIT_S)
            if self._reader:
                await asyncio.wait([self._reader], timeout=1.0)
                self._reader.cancel()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """Read a line, or a piece of one that is longer than the stream's limit; empty at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await stream.readexactly(long.consumed)
