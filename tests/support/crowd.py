"""Clients that come all at once, each by a way of its own, and what became of every call."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Awaitable, Iterable

import aiohttp
import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sluiceway.client import AsyncClient, RetryPolicy
from sluiceway.errors import SluicewayError
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

__all__ = ["ANSWERED", "Bystander", "by_client", "by_http", "by_stub", "job", "outcomes"]

ANSWERED = "answered"
_LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


async def outcomes(calls: Iterable[Awaitable[str]]) -> Counter[str]:
    """How often each way to end came up; all calls run at once."""
    return Counter(await asyncio.gather(*calls))


async def by_client(client: AsyncClient, image: bytes, timeout_s: float) -> str:
    """As applications call: the size goes before the request, and what was not begun is tried again."""
    try:
        result = await client.process(image, timeout_s=timeout_s)
    except SluicewayError as error:
        return error.reason
    assert result.regions
    return ANSWERED


async def by_stub(channel: grpc.aio.Channel, image: bytes, timeout_s: float) -> str:
    """As somebody calls who has nothing but the contract: nothing is said before the request."""
    request = pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=image)])
    [outcome] = (await job(channel, request, timeout_s)).values()
    return outcome


async def job(channel: grpc.aio.Channel, request: pipeline_pb2.ProcessRequest, timeout_s: float) -> dict[str, str]:
    """Run a job; what became of each of its sources, by id. Nothing is said before the request."""
    names = [source.source_id or str(number) for number, source in enumerate(request.sources)]
    ends: dict[str, str] = {}
    stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
    try:
        async for event in stub.Process(request, timeout=timeout_s):
            kind = event.WhichOneof("event")
            if kind in ("done", "failed"):
                assert event.source_id not in ends, f"{event.source_id} ended twice"
                ends[event.source_id] = ANSWERED if kind == "done" else event.failed.error.reason
    except grpc.aio.AioRpcError as error:
        return dict.fromkeys(names, _reason(error)) | ends
    assert ends.keys() == set(names)
    return ends


def _reason(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        # This side's own clock may be the first to say so, and has no details.
        return "DEADLINE_EXCEEDED"
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "sluiceway":
            return info.reason
    return f"{error.code().name} without words: {error.details()}"


async def by_http(session: aiohttp.ClientSession, url: str, image: bytes, timeout_s: float) -> str:
    """Post an image."""
    async with session.post(
        url, data=io.BytesIO(image), params={"timeout_s": str(timeout_s)}, headers={"Content-Type": "image/jpeg"}
    ) as answer:
        text = await answer.text()
    if answer.status != 200:
        return str(json.loads(text)["reason"])
    events = [json.loads(line) for line in text.splitlines()]
    [end] = [event for event in events if "done" in event or "failed" in event]
    return ANSWERED if "done" in end else str(end["failed"]["error"]["reason"])


class Bystander:
    """Sends one image a second, whatever others do, and never a second time.

    Attributes:
        sent: images.
        lost: what became of those that were not answered.
        slowest_s: the longest time until an answer.
    """

    def __init__(self, address: str, image: bytes, timeout_s: float) -> None:
        self._address, self._image, self._timeout_s = address, image, timeout_s
        self.sent = 0
        self.lost: list[str] = []
        self.slowest_s = 0.0

    async def __aenter__(self) -> Bystander:
        self._client = AsyncClient(self._address, retry=RetryPolicy(attempts=1))
        self._calls: list[asyncio.Task[None]] = []
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(*self._calls)
        await self._client.close()

    async def _send(self) -> None:
        while True:
            self._calls.append(asyncio.create_task(self._one()))
            await asyncio.sleep(1)

    async def _one(self) -> None:
        self.sent += 1
        begin_s = asyncio.get_running_loop().time()
        try:
            assert (await self._client.process(self._image, timeout_s=self._timeout_s)).regions
        except SluicewayError as error:
            self.lost.append(f"{error.reason}: {error}")
        self.slowest_s = max(self.slowest_s, asyncio.get_running_loop().time() - begin_s)
