"""Clients of a simulated cluster, each of which keeps account of everything that it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from sluiceway_orchestrator.testing.cluster import SourceEvents
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway_simulation.network.network import Network
from sluiceway_simulation.stages.pictures import Picture

__all__ = ["Ask", "Client", "Heard"]

_PRIORITIES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}
# How much longer than its time a call waits for what the server says of it.
PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class Ask:
    """One job.

    Attributes:
        source_bytes: of each picture's file.
        timeout_s: of the call.
        pause_s: between two events that the client reads.
        leave_after_s: when the client gives up; None if it stays.
        with_size: whether the call says its size and priority, so that it is admitted before it is read.
    """

    job_id: str
    pictures: tuple[Picture, ...]
    priority: Priority = Priority.NORMAL
    timeout_s: float = 10.0
    pipeline: str = ""
    source_bytes: int = 2000
    pause_s: float = 0.0
    leave_after_s: float | None = None
    with_size: bool = True


@dataclass(slots=True)
class Heard:
    """What came of a job.

    Attributes:
        sources: by id, what was said of each.
        reason: of the call's error; empty for a call that ended well, `left` where its client did.
        faults: what broke the contract.
    """

    ask: Ask
    asked_s: float
    sources: dict[str, SourceEvents] = field(default_factory=dict)
    first_s: float | None = None
    ended_s: float = 0.0
    reason: str = ""
    job_done: tuple[int, int] | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def took_s(self) -> float:
        """From the call to its end."""
        return self.ended_s - self.asked_s

    @property
    def succeeded(self) -> bool:
        """Whether every source was done."""
        return not self.reason and all(source.done is not None for source in self.sources.values())

    def failures(self) -> Mapping[str, str]:
        """Reasons of the sources that failed."""
        return {name: source.error.reason for name, source in self.sources.items() if source.error is not None}

    def texts(self) -> list[str]:
        """Everything that was read."""
        return [text for source in self.sources.values() for text in source.texts.elements()]

    def take(self, response: Any) -> None:
        """Take one event down."""
        kind = response.WhichOneof("event")
        if self.job_done is not None:
            self.faults.append(f"{kind} came after job_done")
        if kind == "job_done":
            self.job_done = response.job_done.succeeded, response.job_done.failed
            return
        try:
            self.sources.setdefault(response.source_id, SourceEvents()).add(response)
        except AssertionError as error:
            self.faults.append(f"source {response.source_id}: {error}")


class Client:
    """One client of one orchestrator."""

    def __init__(self, network: Network, address: str, name: str) -> None:
        self.name = name
        self._channel = network.dial(address, peer=name)
        self._stub = pipeline_pb2_grpc.PipelineServiceStub(self._channel)

    async def ask(self, ask: Ask) -> Heard:
        """Run a job to its end, whatever that is."""
        loop = asyncio.get_running_loop()
        heard = Heard(ask, loop.time())
        request = pipeline_pb2.ProcessRequest(
            job_id=ask.job_id,
            sources=_sources(ask.pictures, ask.source_bytes),
            options=pipeline_pb2.ProcessOptions(priority=_PRIORITIES[ask.priority]),
            pipeline=ask.pipeline,
        )
        metadata = [("x-request-id", ask.job_id)]
        if ask.with_size:
            metadata.append(("sluiceway-request-bytes", str(request.ByteSize())))
            metadata.append(("sluiceway-priority", ask.priority.name.lower()))
        call = self._stub.Process(request, timeout=ask.timeout_s + PATIENCE_S, metadata=metadata)
        leaving = None if ask.leave_after_s is None else loop.call_later(ask.leave_after_s, call.cancel)
        try:
            async for response in call:
                if heard.first_s is None:
                    heard.first_s = loop.time()
                heard.take(response)
                if ask.pause_s:
                    await asyncio.sleep(ask.pause_s)
        except grpc.aio.AioRpcError as error:
            heard.reason = from_rpc_error(error).reason
        except asyncio.CancelledError:
            if leaving is None or not call.cancelled_here:
                raise
            heard.reason = "left"
        finally:
            call.cancel()
            if leaving is not None:
                leaving.cancel()
        heard.ended_s = loop.time()
        return heard

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _sources(pictures: Sequence[Picture], size_bytes: int) -> list[pipeline_pb2.Source]:
    return [
        pipeline_pb2.Source(source_id=str(picture.number), image=picture.encode(size_bytes)) for picture in pictures
    ]
