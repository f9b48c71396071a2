"""A pipeline server that answers from a script, over real gRPC on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sluiceway.common.v1 import error_pb2, geometry_pb2, model_pb2, notice_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2 as pb
from sluiceway.pipeline.v1 import pipeline_pb2_grpc


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

    Image bytes are commands: b"bad" fails the source, b"hang" never answers, b"tree" answers as a pipeline of several
    steps on two pages does, anything else is echoed as text.

    Attributes:
        source_failures: what the next sources fail with, in jobs that go on.
        break_stream_after: for each stream in turn, so many jobs are answered; the next one breaks off after its first
            values, and the stream with it.
    """

    refusals: list[Refusal] = field(default_factory=list)
    job_refusals: list[Refusal] = field(default_factory=list)
    source_failures: list[Refusal] = field(default_factory=list)
    break_stream_after: list[int] = field(default_factory=list)
    requests: list[pb.ProcessRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    metadata_of_questions: list[dict[str, str]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    open_jobs: int = 0
    most_open_jobs: int = 0
    max_image_bytes: int = 0
    max_message_bytes: int = 0
    descriptions: int = 0
    ready_stages: set[str] = field(default_factory=lambda: {"detection", "recognition"})

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
        self.metadata.append(dict(context.invocation_metadata() or ()))
        answered = 0
        limit = self.break_stream_after.pop(0) if self.break_stream_after else None
        async for message in jobs:
            self.requests.append(message.job)
            async for event in self._job(message.job):
                event.job_id = message.job.job_id
                yield pb.ProcessStreamResponse(event=event)
                if answered == limit and event.HasField("values"):
                    await context.abort_with_status(Refusal(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE").to_rpc())
            answered += 1

    async def _job(self, job: pb.ProcessRequest) -> AsyncIterator[pb.ProcessResponse]:
        if self.job_refusals:
            yield pb.ProcessResponse(job_refused=pb.JobRefused(error=self.job_refusals.pop(0).to_proto()))
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
        ready = pb.SourceReady(size_bytes=len(source.image), values={"shop": struct({"price": 3, "sale": 0.5})})
        yield pb.ProcessResponse(source_id=name, source_ready=ready)
        if source.image == b"hang":
            self.arrived.set()
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        events = tree() if source.image == b"tree" else two_words(source)
        for event in events:
            event.source_id = name
            yield event

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        self.descriptions += 1
        self.metadata_of_questions.append(dict(context.invocation_metadata() or ()))
        if self.refusals:
            await context.abort_with_status(self.refusals.pop(0).to_rpc())
        return pb.DescribeResponse(
            server_version="0.1.0",
            stages=[
                self._stage("detection", "regions", "text-nano", ["textline", "image"]),
                self._stage("recognition", "text", "tiny", []),
                self._stage("plates", "regions", "plates", ["plate"]),
            ],
            pipelines=[
                pb.Pipeline(
                    name="read",
                    steps=[
                        pb.Step(name="text", kind="detect", stage="detection"),
                        pb.Step(name="words", kind="recognize", stage="recognition", of="text"),
                    ],
                ),
                pb.Pipeline(
                    name="parking",
                    steps=[
                        pb.Step(name="plate", kind="detect", stage="plates", classes=["plate"], on_error="fail"),
                        pb.Step(name="owner", kind="call", api="shop", of="plate", params=["country"]),
                        pb.Step(name="book", kind="call", api="shop", after=["owner"]),
                    ],
                ),
            ],
            default_pipeline="read",
            problems=["the stage plates was never reached"],
            apis=[pb.Api(name="shop", params=["id"])],
            url_sources=True,
            max_sources=64,
            max_image_bytes=self.max_image_bytes,
            max_message_bytes=self.max_message_bytes,
            default_deadline_ms=30_000,
        )

    def _stage(self, name: str, head: str, model: str, classes: list[str]) -> pb.Stage:
        ready = name in self.ready_stages
        endpoint = pb.Endpoint(address="127.0.0.1:5", ready=ready, load=model_pb2.Load(capacity=2), group="ab")
        served = pb.StageModel(
            model=model_pb2.Model(name=model), head=head, classes=classes, backend="openvino", image_sizes=[640, 960]
        )
        return pb.Stage(
            name=name,
            kind="recognition" if head == "text" else "detection",
            target="localhost:5",
            endpoints=[endpoint],
            groups=[pb.StageGroup(name="ab", ready=int(ready), models=[served], workers=2)],
        )


def struct(values: dict[str, object]) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


def box(x0: float, y0: float, x1: float, y1: float) -> geometry_pb2.Geometry:
    return geometry_pb2.Geometry(box=geometry_pb2.Box(x0=x0, y0=y0, x1=x1, y1=y1))


def two_words(source: pb.Source) -> Iterator[pb.ProcessResponse]:
    """What the pipeline `read` says."""
    found = [
        pb.Region(id=index, geometry=geometry, class_name="textline", confidence=0.9 - index / 10)
        for index, geometry in enumerate((box(10, 20, 40, 30), box(1, 2, 5, 4)))
    ]
    page = pb.Page(width=100, height=50)
    yield pb.ProcessResponse(regions=pb.Regions(page=page, step="text", regions=found, recognizing=[0, 1]))
    said = source.image.decode("utf-8", "replace") or source.url or source.api_call.api
    for index, text in enumerate(["world", said[:20]]):
        value = pb.Value(region_id=index, text=value_pb2.Text(text=text, confidence=0.75))
        yield pb.ProcessResponse(values=pb.Values(values=[value], step="words", model="tiny"))
    model = model_pb2.Model(name="tiny", version="1", weights_sha256="ab" * 32)
    steps = [
        pb.StepReport(step="text", timings=model_pb2.StageTimings(total_ms=8)),
        pb.StepReport(step="words", models=[model]),
    ]
    yield pb.ProcessResponse(done=pb.SourceDone(reading_order=[1, 0], total_ms=12.5, steps=steps))


def tree() -> Iterator[pb.ProcessResponse]:
    """What a pipeline of many steps says, on two pages and out of order."""

    def found(step: str, page: int, *regions: pb.Region) -> pb.ProcessResponse:
        where = pb.Page(index=page, width=100 - page, height=50, rotation_degrees=90 * page)
        return pb.ProcessResponse(regions=pb.Regions(page=where, step=step, regions=regions))

    def said(step: str, *values: pb.Value, **about: int) -> pb.ProcessResponse:
        return pb.ProcessResponse(values=pb.Values(step=step, values=values, **about))

    failure = error_pb2.Error(code=14, reason="UPSTREAM_FAILED", message="gone")
    yield found("vehicles", 1, pb.Region(id=5, geometry=box(0, 0, 9, 9), class_name="bus", confidence=0.5))
    yield found("vehicles", 0, pb.Region(id=0, geometry=box(0, 0, 50, 50), class_name="car", confidence=0.9))
    turned = geometry_pb2.RotatedBox(center=geometry_pb2.Point(x=20, y=20), width=10, height=4, angle_degrees=90)
    yield found(
        "plates", 0,
        pb.Region(id=1, geometry=geometry_pb2.Geometry(rotated_box=turned), class_name="plate", parent_id=0),
        pb.Region(id=2, geometry=geometry_pb2.Geometry(), class_name="of a shape to come", parent_id=0),
    )  # fmt: skip
    yield found("plates", 0, pb.Region(id=3, geometry=box(1, 1, 2, 2), class_name="plate", parent_id=0))
    yield said("owner", pb.Value(region_id=1, data=struct({"name": "Köln", "cars": [1, 2.5], "due": None})))
    yield said("number", pb.Value(region_id=1, text=value_pb2.Text(text="K-AB 1", confidence=0.5)))
    yield said("number", pb.Value(region_id=3, error=failure))
    label = value_pb2.Label(class_id=1, class_name="night", confidence=0.7)
    night = pb.Value(classification=value_pb2.Classification(labels=[label]))
    yield said("scene", night, subject=pb.SUBJECT_PAGE, page=1)
    yield said("book", pb.Value(data=struct({"id": 7})), subject=pb.SUBJECT_SOURCE)
    yield said("mail", pb.Value(error=failure), subject=pb.SUBJECT_SOURCE)
    yield said("later", pb.Value(data=struct({"id": 7})), subject=99)
    one, other = model_pb2.Model(name="one"), model_pb2.Model(name="other")
    done = pb.SourceDone(
        reading_order=[0, 3, 1, 5],
        fetch_ms=1,
        total_ms=30,
        steps=[
            pb.StepReport(step="vehicles", timings=model_pb2.StageTimings(queue_ms=1, total_ms=8), models=[one, other]),
            pb.StepReport(step="plates", models=[one]),
            pb.StepReport(step="number", failed=1),
            pb.StepReport(step="owner"),
        ],
        lines=[pb.Line(region_ids=[3, 1])],
        blocks=[pb.Block(lines=[0])],
        notices=[notice_pb2.Notice(reason="REGIONS_TRUNCATED", message="too many", metadata={"limit": "4"}, page=1)],
    )
    yield pb.ProcessResponse(done=done)


@dataclass
class Running:
    """A fake and where it listens."""

    fake: FakePipeline
    address: str


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    fake = FakePipeline()
    # As the real ones: asked for a sign of life as often as anybody likes.
    grpc_server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0)])
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(fake, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    try:
        yield Running(fake, f"127.0.0.1:{port}")
    finally:
        await grpc_server.stop(None)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as found:
        yield found


@pytest.fixture
async def second_server() -> AsyncIterator[Running]:
    """Another orchestrator of the same cluster."""
    async with running() as found:
        yield found


@pytest.fixture
def refusal() -> type[Refusal]:
    """The class itself: test modules cannot import from a conftest."""
    return Refusal
