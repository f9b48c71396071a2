"""A PipelineService whose answers a test dictates, for what a real cluster does only by accident.

It serves the real contract over real gRPC, so that clients in any language can be pointed at it. Everything that a
client could do wrong with a deadline, a cancelled call, flow control or an error's details shows in its records.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from sluiceway_runtime.server.documentation import documented_pool

from sluiceway.common.v1 import error_pb2, geometry_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

Response = pipeline_pb2.ProcessResponse
Script = Callable[["ScriptedPipeline", pipeline_pb2.ProcessRequest, grpc.ServicerContext], Iterator[Response]]

# Beside plain ASCII: what a client that mishandles UTF-8 would get wrong.
TEXTS = ("HELLO", "Größe 漢字 😀")
WAIT_S = 10


@dataclass
class Records:
    """What clients did."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    time_remaining_s: list[float | None] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    jobs: list[pipeline_pb2.ProcessRequest] = field(default_factory=list)
    most_unfinished: int = 0


class ScriptedPipeline(pipeline_pb2_grpc.PipelineServiceServicer):
    """Answers with `script`; the default is two regions for each source."""

    def __init__(self) -> None:
        self.script: Script = answer
        self.records = Records()
        self.token: str | None = None
        # Jobs of a stream are held back until so many have come, to see how many the client sends ahead.
        self.hold_until = 1
        self.received = threading.Condition()

    def _begin(self, context: grpc.ServicerContext) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.records.metadata.append(metadata)
        self.records.time_remaining_s.append(context.time_remaining())
        context.add_callback(self.records.cancelled.set)
        if self.token is not None and metadata.get("authorization") != f"Bearer {self.token}":
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "no valid token")

    def Process(self, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext) -> Iterator[Response]:
        """One job."""
        self._begin(context)
        self.records.jobs.append(request)
        yield from self.script(self, request, context)

    def ProcessStream(
        self, request_iterator: Iterator[pipeline_pb2.ProcessStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pipeline_pb2.ProcessStreamResponse]:
        """Reads without a limit of its own, so that only the client's window bounds what it sends ahead."""
        self._begin(context)
        waiting: list[pipeline_pb2.ProcessRequest] = []
        ended = False

        def read() -> None:
            nonlocal ended
            # The iterator raises when the client cancels; the records tell of that already.
            with contextlib.suppress(grpc.RpcError):
                for message in request_iterator:
                    with self.received:
                        waiting.append(message.job)
                        self.records.jobs.append(message.job)
                        self.records.most_unfinished = max(self.records.most_unfinished, len(waiting))
                        self.received.notify_all()
            with self.received:
                ended = True
                self.received.notify_all()

        reader = threading.Thread(target=read)
        reader.start()
        while True:
            with self.received:
                self.received.wait_for(lambda: ended or (waiting and len(self.records.jobs) >= self.hold_until), WAIT_S)
                if not waiting:
                    break
            for event in self.script(self, waiting[0], context):
                if event.WhichOneof("event") in ("job_done", "job_refused"):
                    # Before the client can know: otherwise a fast client would look as if it sent too early.
                    with self.received:
                        waiting.pop(0)
                yield pipeline_pb2.ProcessStreamResponse(event=event)
        reader.join(WAIT_S)


def source_name(request: pipeline_pb2.ProcessRequest, index: int) -> str:
    """The name that events of a source carry."""
    return request.sources[index].source_id or str(index)


def answer(_: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, __: grpc.ServicerContext) -> Iterator[Response]:
    """Every source succeeds: two regions, each read, the second one first in reading order."""
    for index, source in enumerate(request.sources):
        common = {"job_id": request.job_id, "source_id": source_name(request, index)}
        yield Response(**common, source_ready=pipeline_pb2.SourceReady(size_bytes=len(source.image)))
        yield Response(
            **common,
            regions=pipeline_pb2.Regions(
                page=pipeline_pb2.Page(width=640, height=480),
                step="text",
                regions=[_region(0, 10.5), _region(1, 60.25)],
                recognizing=[0, 1],
            ),
        )
        for region, text in enumerate(TEXTS):
            value = pipeline_pb2.Value(region_id=region, text=value_pb2.Text(text=text, confidence=0.5))
            yield Response(**common, values=pipeline_pb2.Values(values=[value], step="words", model="scripted"))
        yield Response(**common, done=pipeline_pb2.SourceDone(reading_order=[1, 0]))
    yield Response(job_id=request.job_id, job_done=pipeline_pb2.JobDone(succeeded=len(request.sources)))


def _region(identity: int, top: float) -> pipeline_pb2.Region:
    box = geometry_pb2.Box(x0=1.5, y0=top, x1=100.25, y1=top + 20)
    return pipeline_pb2.Region(
        id=identity, geometry=geometry_pb2.Geometry(box=box), class_name="textline", confidence=0.75
    )


def turned_lines(
    server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """Regions of every shape: a turned box that leaves the page, and a free outline of four and of five corners."""
    turned = geometry_pb2.RotatedBox(center=geometry_pb2.Point(x=10, y=20), width=30, height=8, angle_degrees=30)
    free = [(10, 10), (20.5, 5), (30, 10), (25, 20.25), (15, 20)]
    for event in answer(server, request, context):
        if event.HasField("regions"):
            points = [geometry_pb2.Point(x=x, y=y) for x, y in free]
            shapes = (
                geometry_pb2.Geometry(rotated_box=turned),
                geometry_pb2.Geometry(polygon=geometry_pb2.Polygon(points=points[:4])),
                geometry_pb2.Geometry(polygon=geometry_pb2.Polygon(points=points)),
            )
            for row, shape in enumerate(shapes, start=2):
                event.regions.regions.add(id=row, geometry=shape, class_name="text", confidence=0.5)
        yield event


def seen_and_named(
    server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """A region with keypoints, one whose class another model named, and the class of the second page."""
    points = [(10, 20.5, 1), (-3.25, 7, 0.25)]
    for event in answer(server, request, context):
        if event.HasField("regions"):
            for x, y, confidence in points:
                event.regions.regions[0].keypoints.add(x=x, y=y, confidence=confidence)
        yield event
        if event.HasField("regions"):
            for page, subject, names in ((0, pipeline_pb2.SUBJECT_REGION, "ab"), (1, pipeline_pb2.SUBJECT_PAGE, "cd")):
                labels = [
                    value_pb2.Label(class_id=rank, class_name=class_name, confidence=0.75 / (rank + 1))
                    for rank, class_name in enumerate(names)
                ]
                value = pipeline_pb2.Value(
                    region_id=0 if page else 1, classification=value_pb2.Classification(labels=labels)
                )
                said = pipeline_pb2.Values(values=[value], step=f"kind_{page}", model="k", page=page, subject=subject)
                yield Response(job_id=event.job_id, source_id=event.source_id, values=said)


def hang(server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, _: grpc.ServicerContext) -> Iterator[Response]:
    """The first event, and then nothing until the client gives up."""
    yield Response(
        job_id=request.job_id, source_id=source_name(request, 0), source_ready=pipeline_pb2.SourceReady(size_bytes=1)
    )
    server.records.cancelled.wait(WAIT_S)


def fail_first(
    server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """The first source fails, its neighbours do not."""
    error = error_pb2.Error(code=3, reason="INVALID_IMAGE", message="not an image", metadata={"bytes": "7"})
    yield Response(
        job_id=request.job_id,
        source_id=source_name(request, 0),
        failed=pipeline_pb2.SourceFailed(error=error),
    )
    rest = pipeline_pb2.ProcessRequest(job_id=request.job_id, sources=request.sources[1:])
    for event in answer(server, rest, context):
        if event.HasField("job_done"):
            event.job_done.failed = 1
        yield event


def refuse_first(
    server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """The first job of a stream is refused for good, the others run."""
    if request.job_id == server.records.jobs[0].job_id:
        error = error_pb2.Error(code=3, reason="UNKNOWN_PIPELINE", message="no such pipeline")
        yield Response(job_id=request.job_id, job_refused=pipeline_pb2.JobRefused(error=error))
    else:
        yield from answer(server, request, context)


def queue_full(
    _: ScriptedPipeline, __: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """The call is refused and may be repeated in a quarter of a second."""
    refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue is full", 250, {"limit": "256"})
    yield Response()  # never reached: makes this function a generator


def from_the_future(
    server: ScriptedPipeline, request: pipeline_pb2.ProcessRequest, context: grpc.ServicerContext
) -> Iterator[Response]:
    """What a newer server might send, and steps that a client did not ask for.

    An unknown event, unknown fields, an unknown shape, a kind of value that no program prints, and a text of the whole
    page, whose region means nothing.
    """
    # Field 99, length-delimited: an event that this release does not know.
    yield Response.FromString(b"\x9a\x06\x03new")
    for event in answer(server, request, context):
        if event.HasField("regions"):
            unknown = geometry_pb2.Geometry.FromString(b"\x9a\x06\x03new")
            event.regions.regions.add(id=2, geometry=unknown, class_name="new")
        elif event.HasField("values"):
            owner = pipeline_pb2.Value(region_id=event.values.values[0].region_id)
            owner.data.update({"owner": "somebody", "fines": [1, None, {"paid": True}]})
            yield Response(
                source_id=event.source_id,
                values=pipeline_pb2.Values(values=[owner], step="owner", page=event.values.page),
            )
            page = pipeline_pb2.Value(text=value_pb2.Text(text="of the page", confidence=1))
            yield Response(
                source_id=event.source_id,
                values=pipeline_pb2.Values(values=[page], step="page", subject=pipeline_pb2.SUBJECT_PAGE),
            )
        yield Response.FromString(event.SerializeToString() + b"\x9a\x06\x03new")


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    retry_ms: int = 0,
    metadata: dict[str, str] | None = None,
) -> None:
    """End the call as Sluiceway's servers do: with ErrorInfo and, where repeating makes sense, RetryInfo."""
    details = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain="sluiceway", metadata=metadata or {}))
    if retry_ms:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(retry_ms)
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def start(pipeline: ScriptedPipeline, tls: tuple[Path, Path, Path | None] | None = None) -> tuple[grpc.Server, str]:
    """Serve on a free port.

    Args:
        pipeline: what answers.
        tls: files of the certificate, its key, and the authority that client certificates must come from.

    Returns:
        The server, for the caller to stop, and its address.
    """
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 64 * 2**20)])
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(pipeline, server)
    # For clients that bring no stubs (grpcurl, buf curl).
    reflection.enable_server_reflection(
        ("sluiceway.pipeline.v1.PipelineService", reflection.SERVICE_NAME), server, documented_pool()
    )
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        certificate, key, authority = tls
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            root_certificates=authority.read_bytes() if authority else None,
            require_client_auth=authority is not None,
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, f"localhost:{port}"
