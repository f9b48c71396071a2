"""A pipeline server that answers from a script, over real gRPC on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sluiceway.common.v1 import error_pb2, geometry_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2 as pb
from sluiceway.pipeline.v1 import pipeline_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2


@dataclass
class Refusal:
    """How a call ends instead of being served."""

    code: grpc.StatusCode
    reason: str
    retry_after_s: float | None = None
    message: str = "refused by the script"

    def to_rpc(self) -> object:
        details = [pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="sluiceway", metadata={"limit": "7"}))]
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=details)
        return rpc_status.to_status(status)

    def to_proto(self) -> error_pb2.Error:
        return error_pb2.Error(
            code=self.code.value[0],
            reason=self.reason,
            message=self.message,
            retry_after_ms=int((self.retry_after_s or 0) * 1000),
        )


def pack(message: object) -> any_pb2.Any:
    box = any_pb2.Any()
    box.Pack(message)
    return box


@dataclass
class FakePipeline(pipeline_pb2_grpc.PipelineServiceServicer):
    """Finds two words in every image, the second one first in reading order; fails images that say so.

    Image bytes are commands: b"bad" fails the source, b"hang" never answers, anything else is echoed as text.

    Attributes:
        source_failures: what the next sources fail with, in jobs that go on.
        break_stream_after: for each stream in turn, so many jobs are answered; the next one breaks off after its first
            recognition, and the stream with it.
    """

    refusals: list[Refusal] = field(default_factory=list)
    job_refusals: list[Refusal] = field(default_factory=list)
    source_failures: list[Refusal] = field(default_factory=list)
    break_stream_after: list[int] = field(default_factory=list)
    requests: list[pb.ProcessRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    open_jobs: int = 0
    most_open_jobs: int = 0
    max_image_bytes: int = 0
    max_message_bytes: int = 0
    descriptions: int = 0
    replica_ready: bool = True

    async def Process(
        self, request: pb.ProcessRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ProcessResponse]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.refusals:
            await context.abort_with_status(self.refusals.pop(0).to_rpc())
        for source in request.sources:
            async for event in self._source(source):
                yield event
        yield pb.ProcessResponse(job_done=pb.JobDone(succeeded=len(request.sources)))

    async def ProcessStream(
        self, jobs: AsyncIterator[pb.ProcessStreamRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ProcessStreamResponse]:
        answered = 0
        limit = self.break_stream_after.pop(0) if self.break_stream_after else None
        async for message in jobs:
            self.requests.append(message.job)
            async for event in self._job(message.job):
                event.job_id = message.job.job_id
                yield pb.ProcessStreamResponse(event=event)
                if answered == limit and event.HasField("recognitions"):
                    await context.abort_with_status(Refusal(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE").to_rpc())
            answered += 1

    async def _job(self, job: pb.ProcessRequest) -> AsyncIterator[pb.ProcessResponse]:
        if self.job_refusals:
            yield pb.ProcessResponse(job_done=pb.JobDone(error=self.job_refusals.pop(0).to_proto()))
            return
        for source in job.sources:
            async for event in self._source(source):
                yield event
        yield pb.ProcessResponse(job_done=pb.JobDone(succeeded=1))

    async def _source(self, source: pb.Source) -> AsyncIterator[pb.ProcessResponse]:
        name = source.source_id
        if self.source_failures:
            failed = pb.SourceFailed(error=self.source_failures.pop(0).to_proto())
            yield pb.ProcessResponse(source_id=name, failed=failed)
            return
        if source.image == b"bad":
            error = error_pb2.Error(code=3, reason="INVALID_IMAGE", message="not an image")
            yield pb.ProcessResponse(source_id=name, failed=pb.SourceFailed(error=error))
            return
        ready = pb.ImageReady(size_bytes=len(source.image), metadata={"shop.price": "3"})
        yield pb.ProcessResponse(source_id=name, image_ready=ready)
        if source.image == b"hang":
            self.arrived.set()
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        boxes = (geometry_pb2.Box(x0=10, y0=20, x1=40, y1=30), geometry_pb2.Box(x0=1, y0=2, x1=5, y1=4))
        found = [
            detection_pb2.Detection(
                id=index, geometry=geometry_pb2.Geometry(box=box), class_name="textline", confidence=0.9 - index / 10
            )
            for index, box in enumerate(boxes)
        ]
        detections = pb.Detections(width=100, height=50, detections=found, recognizing=[0, 1])
        yield pb.ProcessResponse(source_id=name, detections=detections)
        said = source.image.decode("utf-8", "replace") or source.url or source.api_call.api
        for index, text in enumerate(["world", said[:20]]):
            reading = recognition_pb2.Recognition(crop_id=index, text=recognition_pb2.Text(text=text, confidence=0.75))
            yield pb.ProcessResponse(source_id=name, recognitions=pb.Recognitions(recognitions=[reading], model="tiny"))
        done = pb.SourceDone(
            reading_order=[1, 0],
            total_ms=12.5,
            detection=model_pb2.StageTimings(total_ms=8),
            models=[model_pb2.Model(name="tiny", version="1", weights_sha256="ab" * 32)],
        )
        yield pb.ProcessResponse(source_id=name, done=done)

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        self.descriptions += 1
        if self.refusals:
            await context.abort_with_status(self.refusals.pop(0).to_rpc())
        endpoint = pb.Endpoint(address="127.0.0.1:50052", ready=self.replica_ready, load=model_pb2.Load(capacity=2))
        return pb.DescribeResponse(
            server_version="0.1.0",
            stages=[pb.Stage(name="detection", target="localhost:50052", endpoints=[endpoint])],
            detection=detection_pb2.DescribeResponse(
                model=model_pb2.Model(name="text-nano"), backend="openvino", workers=2, classes=["textline", "image"]
            ),
            routes=[pb.Route(detection_class="*", model="tiny")],
            apis=[pb.Api(name="shop", params=["id"])],
            url_sources=True,
            max_sources=64,
            max_image_bytes=self.max_image_bytes,
            max_message_bytes=self.max_message_bytes,
            default_deadline_ms=30_000,
        )


@dataclass
class Running:
    """A fake and where it listens."""

    fake: FakePipeline
    address: str


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    fake = FakePipeline()
    # As the real ones: asked for a sign of life as often as anybody likes.
    grpc_server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0)])
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(fake, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    yield Running(fake, f"127.0.0.1:{port}")
    await grpc_server.stop(None)


@pytest.fixture
def refusal() -> type[Refusal]:
    """The class itself: test modules cannot import from a conftest."""
    return Refusal
