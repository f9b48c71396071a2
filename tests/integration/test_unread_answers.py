"""Clients that do not read: when the time of their jobs is over they hold nothing, and others never wait for them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import grpc.aio
import pytest
from fetching import given_by
from sluiceway_orchestrator.fetch import Answer, Call
from sluiceway_orchestrator.testing import Cluster, picture
from sluiceway_orchestrator.testing.cluster import account
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

IMAGE_BYTES = 900_000
# What the orchestrator has in a container of a gigabyte.
BUDGET_BYTES = 400 * 2**20
# What connections and the names of lost sources take up: far less than an image for each of them.
SMALL_BYTES = 3 * 2**20
Source, Request = pipeline_pb2.Source, pipeline_pb2.ProcessRequest
RETURNED = pipeline_pb2.ProcessOptions(return_images=True)


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """An API whose images are so large that a client which does not read is soon waited for."""

    async def answer(call: Call) -> Answer:
        return Answer(picture(int(call.params["item"]), size_bytes=IMAGE_BYTES))

    return {"big": {"caller": given_by(monkeypatch, answer)}}


def sources(count: int) -> list[pipeline_pb2.Source]:
    return [
        Source(source_id=str(index), api_call=pipeline_pb2.ApiCall(api="big", params={"item": str(index)}))
        for index in range(count)
    ]


def held(cluster: Cluster) -> tuple[int, int, int]:
    """Jobs, slots in use, and bytes."""
    service = cluster.service
    gate = service._gate
    return service._jobs.running, sum(gate._held.values()), service.budget.used_bytes


async def until_free(cluster: Cluster) -> None:
    def free() -> bool:
        jobs, slots, used_bytes = held(cluster)
        return not jobs and not slots and used_bytes < SMALL_BYTES

    await until(free, state=lambda: (held(cluster), cluster.service._gate))
    assert cluster.service.budget.waiting == 0
    assert cluster.service._gate.waiting == 0


async def is_served(cluster: Cluster, within_s: float = 15) -> None:
    """Another client, with an image in its request; it says how large that is, as ours do."""
    request = Request(sources=[Source(image=picture(1))])
    size = (("sluiceway-request-bytes", str(request.ByteSize())),)
    (heard,) = (await account(cluster.stub.Process(request, timeout=within_s, metadata=size)))[None].values()
    assert heard.done is not None, heard.error


@asynccontextmanager
async def streams(cluster: Cluster, clients: int, jobs: int) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Clients that write jobs for as long as they are let, and read nothing."""
    async with AsyncExitStack() as stack:
        writers = []
        for _ in range(clients):
            channel = await stack.enter_async_context(cluster.connect())
            call = pipeline_pb2_grpc.PipelineServiceStub(channel).ProcessStream()
            stack.callback(call.cancel)

            async def write(call: grpc.aio.StreamStreamCall = call) -> None:
                for number in range(jobs):
                    job = Request(job_id=f"j{number}", sources=sources(4), options=RETURNED)
                    await call.write(pipeline_pb2.ProcessStreamRequest(job=job))

            writers.append(asyncio.create_task(write()))
        try:
            yield writers
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)


async def test_streams_that_nobody_reads_hold_nothing_after_the_time_of_their_jobs(
    big: dict[str, dict[str, str]],
) -> None:
    async with Cluster(apis=big, default_deadline_s=3, memory_bytes=BUDGET_BYTES) as cluster:
        async with streams(cluster, clients=4, jobs=60):
            await until(lambda: held(cluster)[0] >= 4 * 16, state=lambda: held(cluster))
            # While they hang.
            await is_served(cluster)
            await until_free(cluster)
            await is_served(cluster)
        await until(lambda: held(cluster)[2] == 0, state=lambda: held(cluster))


async def test_a_stream_that_is_read_late_hears_of_every_job_what_became_of_it(big: dict[str, dict[str, str]]) -> None:
    async with Cluster(apis=big, default_deadline_s=2, memory_bytes=BUDGET_BYTES) as cluster:
        call = cluster.stub.ProcessStream()
        for number in range(20):
            job = Request(job_id=f"j{number}", sources=sources(4), options=RETURNED)
            await call.write(pipeline_pb2.ProcessStreamRequest(job=job))
        await call.done_writing()
        # On a busy machine the time of the first ones may be over before the last are read.
        await until(lambda: held(cluster)[0] > 0, state=lambda: held(cluster))
        await until_free(cluster)
        ends: dict[tuple[str, str], str] = {}
        async with asyncio.timeout(30):
            async for response in call:
                event = response.event
                if event.HasField("done") or event.HasField("failed"):
                    assert (event.job_id, event.source_id) not in ends
                    ends[event.job_id, event.source_id] = event.failed.error.reason
                elif event.HasField("job_done"):
                    own = [reason for (job, _), reason in ends.items() if job == event.job_id]
                    assert (own.count(""), len(own) - own.count("")) == (
                        event.job_done.succeeded,
                        event.job_done.failed,
                    )
        assert len(ends) == 20 * 4
        assert set(ends.values()) <= {"", "DEADLINE_EXCEEDED"}
        assert "DEADLINE_EXCEEDED" in ends.values()


async def test_a_client_that_reads_too_late_hears_that_its_time_is_over(big: dict[str, dict[str, str]]) -> None:
    async with Cluster(apis=big, default_deadline_s=1) as cluster:
        call = cluster.stub.Process(Request(sources=sources(60), options=RETURNED))
        await until(lambda: held(cluster)[0] == 1, state=lambda: held(cluster))
        await until_free(cluster)
        await until(lambda: held(cluster)[2] == 0, state=lambda: held(cluster))

        async def read() -> None:
            async for _ in call:
                pass

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(read(), 30)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("within_s", [None, 3.0])
async def test_single_jobs_that_nobody_reads(big: dict[str, dict[str, str]], within_s: float | None) -> None:
    """With a deadline of the client's own, and with the server's."""
    async with (
        Cluster(apis=big, default_deadline_s=3, memory_bytes=BUDGET_BYTES) as cluster,
        AsyncExitStack() as stack,
    ):
        for _ in range(4):
            channel = await stack.enter_async_context(cluster.connect())
            request = Request(sources=[*sources(60), Source(image=picture(0, size_bytes=8_000_000))], options=RETURNED)
            size = (("sluiceway-request-bytes", str(request.ByteSize())),)
            call = pipeline_pb2_grpc.PipelineServiceStub(channel).Process(request, timeout=within_s, metadata=size)
            stack.callback(call.cancel)
        await until(lambda: held(cluster)[0] == 4, state=lambda: held(cluster))
        await is_served(cluster)
        await until_free(cluster)
        await is_served(cluster)


async def test_clients_of_the_http_port_that_do_not_read(big: dict[str, dict[str, str]]) -> None:
    http = {"enabled": True, "port": 0}
    async with (
        Cluster(apis=big, http=http, default_deadline_s=3, memory_bytes=BUDGET_BYTES) as cluster,
        AsyncExitStack() as stack,
    ):
        calls = [
            {"source_id": str(index), "api_call": {"api": "big", "params": {"item": str(index)}}} for index in range(60)
        ]
        body = json.dumps({"sources": calls, "options": {"return_images": True}}).encode()
        head = (
            "POST /v1/process?timeout_s=3 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", cluster.service.http.port))
            await loop.sock_sendall(client, head.encode() + body)
        await until(lambda: held(cluster)[0] == 4, state=lambda: held(cluster))
        await is_served(cluster)
        await until_free(cluster)
        await is_served(cluster)
