"""Starts a contestant, asks it, and ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_cluster.scaling import service_of

from benchmarks.peers.wires import Wire
from sluiceway import AsyncClient, Options
from sluiceway.bench.caller import Caller
from sluiceway.bench.load import Send
from sluiceway.bench.outcome import OK, TIMED_OUT, Answer
from sluiceway.client.connection import Connection
from sluiceway.errors import QueueFull

__all__ = ["REFUSED", "Program", "Running", "StartFault", "host_ours", "host_peer"]

REFUSED = "refused"
# What servers answer that take no more: too many requests, and unavailable.
REFUSALS = (429, 503)


class StartFault(Exception):
    """A contestant did not start; the message has the end of what it wrote."""


@dataclass(frozen=True)
class Running:
    """A contestant that answers: how to ask it, what it reads in each image, and its processes."""

    send: Send
    texts: Sequence[Sequence[str]]
    pids: Sequence[int]

    def memory_mb(self) -> float:
        """Proportional set size of all its processes: shared pages count once."""
        found = {process for pid in self.pids for process in _family(pid)}
        total = 0
        for process in found:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 2**20

    def cpu_s(self) -> float:
        """CPU time of all its processes and of this one so far."""
        return sum(self.cpu_s_by_process().values())

    def cpu_s_by_process(self) -> dict[str, float]:
        """The same, of each by what it runs and its number; this one is `clients`."""
        found = {"clients": sum(psutil.Process().cpu_times()[:2])}
        for process in {process for pid in self.pids for process in _family(pid)}:
            with suppress(psutil.NoSuchProcess):
                found[f"{_runs(process)} {process.pid}"] = sum(process.cpu_times()[:2])
        return found


def _runs(process: psutil.Process) -> str:
    """The module that it is started with, or the name of its program."""
    words = process.cmdline()
    return words[words.index("-m") + 1] if "-m" in words[:-1] else process.name()


@asynccontextmanager
async def host_ours(images: Sequence[bytes], variables: Mapping[str, str]) -> AsyncIterator[Running]:
    """This checkout, as `sluiceway up` runs it."""
    # With the ports that are configured it is planned as for `up`: as many servers as the machine carries.
    usual = Counter(
        service_of(server.name)
        for server in plan_cluster(None, os.environ, free_ports=False, overrides=variables).servers
    )
    scale = [f"{service}={count}" for service, count in usual.items()]
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=variables, scale=scale)
    addresses = ",".join(plan.addresses)
    async with Cluster(plan.servers) as cluster, AsyncClient(addresses) as client:
        results = [await client.process(image) for image in images]
        for result in results:
            result.raise_for_error()
        texts = [[region.text for region in result.regions if region.text] for result in results]
        connection = Connection(addresses, tls=None, token=None)
        caller = Caller(connection, images, Options())

        async def send(source: int, timeout_s: float) -> Answer:
            answer = await caller(source, timeout_s)
            return Answer(REFUSED, answer.timings) if answer.kind == QueueFull.default_reason else answer

        try:
            yield Running(send, texts, [pid for pid in cluster.pids.values() if pid])
        finally:
            await connection.close()


@dataclass(frozen=True)
class Program:
    """A peer to start.

    Attributes:
        command: with its Python.
        variables: beside those of this process.
        port: on which it serves HTTP, on the loopback interface.
        log: for whatever it writes.
        ready_s: it has to answer by then.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    port: int
    log: Path
    ready_s: float


@asynccontextmanager
async def host_peer(program: Program, wire: Wire, images: Sequence[bytes]) -> AsyncIterator[Running]:
    """Start a program that serves, and end it.

    Raises:
        StartFault: it ended, or did not answer in time.
    """
    bodies = [wire.body(image) for image in images]
    headers = [wire.headers(body) for body in bodies]
    log = program.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out, tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            env={**os.environ, **program.variables},
            cwd=folder,
            stdout=out,
            stderr=out,
            # So that all that it starts can be found, and ended.
            start_new_session=True,
        )
        try:
            # As many connections as there are requests; nothing waits for one here.
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{program.port}", connector=connector) as session:

                async def ask(source: int) -> tuple[int, bytes]:
                    async with session.post(wire.path, data=bodies[source], headers=headers[source]) as response:
                        return response.status, await response.read()

                async def send(source: int, timeout_s: float) -> Answer:
                    try:
                        async with asyncio.timeout(timeout_s):
                            status, body = await ask(source)
                    except TimeoutError:
                        return Answer(TIMED_OUT)
                    except aiohttp.ClientError as error:
                        return Answer(type(error).__name__)
                    if status == 200:
                        wire.texts(body)
                        return Answer(OK)
                    return Answer(REFUSED if status in REFUSALS else f"status {status}")

                await _wait_until_it_answers(ask, process, program)
                answers = [await ask(source) for source in range(len(images))]
                if any(status != 200 for status, _ in answers):
                    raise StartFault(f"answered {[status for status, _ in answers]}; {_end_of(log)}")
                yield Running(send, [wire.texts(body) for _, body in answers], [process.pid])
        finally:
            await _end(process)


async def _wait_until_it_answers(
    ask: Callable[[int], Awaitable[tuple[int, bytes]]], process: asyncio.subprocess.Process, program: Program
) -> None:
    log, status = program.log, 0
    try:
        async with asyncio.timeout(program.ready_s):
            while True:
                if process.returncode is not None:
                    raise StartFault(f"ended with {process.returncode}: {_end_of(log)}")
                with suppress(aiohttp.ClientConnectionError, TimeoutError):
                    status, _ = await asyncio.wait_for(ask(0), 60)
                    if status == 200:
                        return
                await asyncio.sleep(0.3)
    except TimeoutError:
        last = f", but for status {status}" if status else ""
        raise StartFault(f"did not answer in {program.ready_s:g} s{last}: {_end_of(log)}") from None


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-1500:]


def _family(pid: int) -> list[psutil.Process]:
    """A process and all below it; those of its session as well, which some frameworks detach from it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        found = {process, *process.children(recursive=True)}
        for other in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(other.pid) == pid:
                    found |= {other, *other.children(recursive=True)}
        return list(found)
    return []


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and all that it started, some of which outlive it where it is killed."""
    family = _family(process.pid)
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        if process.returncode is None:
            process.kill()
            await process.wait()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    await asyncio.to_thread(psutil.wait_procs, family, 5)
