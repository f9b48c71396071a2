"""What an orchestrator holds under load that it cannot keep up with: its budget, and little more."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from sluiceway_orchestrator.testing import picture
from waiting import until

from sluiceway.client import AsyncClient
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

PROBE = Path(__file__).parents[1] / "support" / "memory_probe.py"
MB, MIB = 10**6, 2**20
Source, Request = pipeline_pb2.Source, pipeline_pb2.ProcessRequest
BIG = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Probe:
    """What a process said of itself: the last of each fact, and the most of it."""

    facts: dict[str, Any] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)

    async def listen(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            said = json.loads(line)
            self.facts |= said
            for name, value in said.items():
                if isinstance(value, int | float):
                    self.most[name] = max(value, self.most.get(name, value))

    async def until(self, holds: Callable[[dict[str, Any]], bool], within_s: float = 60) -> None:
        await until(lambda: holds(self.facts), state=lambda: self.facts, within_s=within_s)


@asynccontextmanager
async def probe(role: str, **options: Any) -> AsyncIterator[Probe]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROBE), role, json.dumps(options),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    found = Probe()
    listening = asyncio.create_task(found.listen(process.stdout))
    try:
        await found.until(bool)
        yield found
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)
        await listening
    finally:
        listening.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(call: Any) -> str:
    """How a call ended, by the name of its code or of its first error."""
    try:
        async for response in call:
            if response.HasField("failed"):
                return str(response.failed.error.reason)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_a_job_of_dense_pages_holds_the_budget_and_no_more_than_a_fifth() -> None:
    """128 pages of 400 regions, 18 MB of pixels each, 2.4 GB in all, and a reader that does not read them."""
    budget = 256 * MIB
    async with probe("stages") as stages:
        places = {name: stages.facts[name] for name in ("detection", "recognition")}
        async with (
            probe("orchestrator", memory_bytes=budget, **places) as orchestrator,
            grpc.aio.insecure_channel(f"127.0.0.1:{orchestrator.facts['port']}", options=BIG) as channel,
        ):
            pages = [
                Source(source_id=str(n), image=picture(n, regions=400, crop_bytes=48 * 320 * 3)) for n in range(128)
            ]
            call = pipeline_pb2_grpc.PipelineServiceStub(channel).Process(Request(sources=pages), timeout=25)
            assert await ended(call) == "DEADLINE_EXCEEDED"
            await orchestrator.until(lambda facts: facts["jobs"] == 0 and facts["used_bytes"] == 0)
    assert orchestrator.most["used_bytes"] > budget / 2
    assert orchestrator.most["most_bytes"] < 1.2 * budget


@pytest.mark.parametrize("metadata", [True, False])
async def test_60_calls_of_24_mb_stay_below_a_gibibyte(metadata: bool) -> None:
    """All of them wait for a detector that is not there: each is answered or refused, and nothing is killed."""
    async with (
        probe("orchestrator", memory_bytes=int(0.4 * 1024 * MIB), default_deadline_s=15) as orchestrator,
        grpc.aio.insecure_channel(f"127.0.0.1:{orchestrator.facts['port']}", options=BIG) as channel,
    ):
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
        request = Request(sources=[Source(image=b"BM" + bytes(24 * MB))])
        size = (("sluiceway-request-bytes", str(request.ByteSize())),) if metadata else ()
        ends = Counter(
            await asyncio.gather(*(ended(stub.Process(request, timeout=15, metadata=size)) for _ in range(60)))
        )
    assert ends.total() == 60
    assert set(ends) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert orchestrator.facts["begun_bytes"] + orchestrator.most["most_bytes"] < 1024 * MIB


async def test_60_calls_of_the_client_library_stay_below_a_gibibyte() -> None:
    async with (
        probe("orchestrator", memory_bytes=int(0.4 * 1024 * MIB), default_deadline_s=15) as orchestrator,
        AsyncClient(f"127.0.0.1:{orchestrator.facts['port']}") as client,
    ):
        image = b"BM" + bytes(24 * MB)
        ends = await asyncio.gather(*(client.process(image, timeout_s=15) for _ in range(60)), return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ends)
    assert orchestrator.facts["begun_bytes"] + orchestrator.most["most_bytes"] < 1024 * MIB


@pytest.mark.parametrize("way", ["calls", "stream"])
async def test_an_image_that_waits_is_held_little_more_than_once(way: str) -> None:
    """24 requests of 24 MB that wait for a detector that is not there: 1.6 copies of each at most."""
    count = 24
    async with (
        probe("orchestrator", memory_bytes=2048 * MIB, default_deadline_s=60) as orchestrator,
        grpc.aio.insecure_channel(f"127.0.0.1:{orchestrator.facts['port']}", options=BIG) as channel,
    ):
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
        request = Request(sources=[Source(image=b"BM" + bytes(24 * MB))])
        size = (("sluiceway-request-bytes", str(request.ByteSize() + 64)),)
        calls: list[Any] = []
        if way == "calls":
            calls = [stub.Process(request, timeout=60, metadata=size) for _ in range(count)]
        else:
            calls = [stub.ProcessStream(metadata=size)]
            for number in range(count):
                request.job_id = str(number)
                await calls[0].write(pipeline_pb2.ProcessStreamRequest(job=request))
        await orchestrator.until(lambda facts: facts.get("jobs") == count)
        # What a request came in is given back while it waits, on a busy machine a while after it was read.
        await orchestrator.until(lambda facts: facts["held_bytes"] / count / (24 * MB) < 1.6)
        for call in calls:
            call.cancel()
        await orchestrator.until(lambda facts: facts["jobs"] == 0 and facts["used_bytes"] == 0)


async def test_a_stream_of_large_jobs_is_read_as_far_as_there_is_room() -> None:
    """40 jobs of 24 MB, 960 MB in all, on one stream of a server with a gibibyte."""
    budget = int(0.4 * 1024 * MIB)
    async with (
        probe("orchestrator", memory_bytes=budget, default_deadline_s=4) as orchestrator,
        grpc.aio.insecure_channel(f"127.0.0.1:{orchestrator.facts['port']}", options=BIG) as channel,
    ):
        request = Request(sources=[Source(image=b"BM" + bytes(24 * MB))])
        size = (("sluiceway-request-bytes", str(request.ByteSize() + 64)),)
        call = pipeline_pb2_grpc.PipelineServiceStub(channel).ProcessStream(metadata=size)

        async def write() -> None:
            for number in range(40):
                request.job_id = str(number)
                await call.write(pipeline_pb2.ProcessStreamRequest(job=request))
            await call.done_writing()

        writing = asyncio.create_task(write())
        ends = Counter[str]()
        async with asyncio.timeout(100):
            async for response in call:
                if response.event.HasField("failed"):
                    ends[response.event.failed.error.reason] += 1
        await writing
    assert ends.total() == 40
    assert set(ends) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert orchestrator.most["used_bytes"] < budget
    assert orchestrator.facts["begun_bytes"] + orchestrator.most["most_bytes"] < 1024 * MIB
