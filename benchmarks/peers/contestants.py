"""Those that are compared: how each is installed, started and asked."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_detection.config import DEFAULT_MODEL
from sluiceway_runtime import weights
from sluiceway_runtime.cores import isa

from sluiceway import AsyncClient, Options
from sluiceway.bench.caller import Caller
from sluiceway.bench.load import Send
from sluiceway.bench.outcome import OK, TIMED_OUT, Answer
from sluiceway.client.connection import Connection

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv-peers"
READY_S = 300.0


@dataclass(frozen=True)
class Running:
    """A contestant that answers: how to ask it, what it reads in each image, and its processes."""

    send: Send
    texts: Sequence[Sequence[str]]
    pids: Sequence[int]

    def memory_mb(self) -> float:
        """Proportional set size of all its processes: shared pages count once."""
        found = {process for pid in self.pids for process in _family(pid)}
        return sum(process.memory_full_info().pss for process in found) / 2**20


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@asynccontextmanager
async def sluiceway(images: Sequence[bytes], workers: int) -> AsyncIterator[Running]:
    """This checkout, as `sluiceway up` runs it, with so many workers in each stage."""
    settings = {"WORKERS": str(workers), "THREADS_PER_WORKER": "1", "DEVICE": "cpu"}
    stages = ("DETECTION", "RECOGNITION")
    overrides = {f"SLUICEWAY_{stage}__{key}": value for stage in stages for key, value in settings.items()}
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=overrides)
    async with Cluster(plan.servers) as cluster, AsyncClient(plan.address) as client:
        results = [await client.process(image) for image in images]
        texts = [[region.text for region in result.regions if region.text] for result in results]
        connection = Connection(plan.address, tls=None, token=None)
        try:
            yield Running(Caller(connection, images, Options()), texts, [pid for pid in cluster.pids.values() if pid])
        finally:
            await connection.close()


@asynccontextmanager
async def litserve_tuned(images: Sequence[bytes], workers: int) -> AsyncIterator[Running]:
    """LitServe with the same engines, pinned: benchmarks/peers/litserve_tuned.py."""
    detector = weights.resolve(DEFAULT_MODEL, kind="detection")
    recogniser = weights.resolve("ppocrv6-tiny", kind="recognition")
    python = environment("litserve", ["litserve==0.2.19", "openvino>=2025.0", "opencv-python-headless>=4.10"])
    port = _free_port()
    with tempfile.TemporaryDirectory() as locks:
        options = {
            "detector": detector.path,
            "recogniser": recogniser.path,
            "characters": recogniser.files["config"],
            "precision": "bf16" if "amx_bf16" in isa() else "f32",
            "locks": locks,
            "workers": workers,
            "port": port,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        process = await asyncio.create_subprocess_exec(str(python), str(HERE / "litserve_tuned.py"), *arguments)
        try:
            url = f"http://127.0.0.1:{port}"
            bodies = [{"image": base64.b64encode(image).decode()} for image in images]
            # As many connections as there are requests; nothing waits for one here.
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(url, connector=connector) as session:
                await _wait_until_healthy(session, process)
                texts = [await _texts(session, body) for body in bodies]

                async def send(source: int, timeout_s: float) -> Answer:
                    try:
                        async with asyncio.timeout(timeout_s):
                            await _texts(session, bodies[source])
                    except TimeoutError:
                        return Answer(TIMED_OUT)
                    except aiohttp.ClientError as error:
                        return Answer(type(error).__name__)
                    return Answer(OK)

                yield Running(send, texts, [process.pid])
        finally:
            await _end(process)


CONTESTANTS = {"sluiceway": sluiceway, "litserve tuned": litserve_tuned}


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's own environment, made where it is missing."""
    python = ENVIRONMENTS / name / "bin" / "python"
    done = ENVIRONMENTS / name / ".ready"
    if not done.exists():
        print(f"making {python.parents[1]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        done.touch()
    return python


async def _texts(session: aiohttp.ClientSession, body: dict[str, str]) -> list[str]:
    async with session.post("/predict", json=body) as response:
        response.raise_for_status()
        answer = await response.json()
    return list(answer["texts"])


async def _wait_until_healthy(session: aiohttp.ClientSession, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            if process.returncode is not None:
                raise SystemExit(f"the peer ended with {process.returncode}")
            try:
                async with session.get("/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.2)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and its workers, which outlive it where it is killed."""
    if process.returncode is not None:
        return
    family = _family(process.pid)
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()
    for member in family[1:]:
        if member.is_running():
            member.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
