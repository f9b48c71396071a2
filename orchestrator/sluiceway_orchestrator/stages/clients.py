"""The calls of the two stages: messages in and out, retried where that is safe."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    ImageTooLarge,
    QueueFull,
    SluicewayError,
    Unavailable,
)
from sluiceway_runtime.server.convert import error_to_proto
from sluiceway_runtime.server.status import DETAILS_KEY, from_rpc_error

from sluiceway.common.v1 import geometry_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway_orchestrator.events import Crops, Detected, Model, Recognized, StageTimings
from sluiceway_orchestrator.stages.balancer import Report
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.stages.stage import Lease, Stage, Ticket
from sluiceway_orchestrator.wire import CropSpan, bytes_field, join_spans, split_crops

__all__ = ["Answer", "DetectionClient", "DetectionWire", "RecognitionClient", "RecognitionWire"]

_DETECTION = "sluiceway.detection.v1.DetectionService"
_RECOGNITION = "sluiceway.recognition.v1.RecognitionService"
# A call broken off by the network shows as UNAVAILABLE; one that a dying server ended itself, as CANCELLED.
_BROKEN = (Unavailable, Cancelled)
# How gRPC, at either end, says that a message is over a limit. Its code is the one of a full queue.
_OVER_LIMIT = "message larger than max"

DetectionDescription = detection_pb2.DescribeResponse
RecognitionDescription = recognition_pb2.DescribeResponse


def _as_it_is(message: bytes) -> bytes:
    return message


async def _watch(channel: grpc.aio.Channel, service: str) -> AsyncIterator[bool]:
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    call = watch(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True)
    try:
        while isinstance(answer := await call.read(), health_pb2.HealthCheckResponse):
            yield answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        call.cancel()


class DetectionWire:
    """Health and description of the detection stage."""

    service = _DETECTION

    def bind(self, channel: grpc.aio.Channel) -> Any:
        """`Detect`, from bytes to bytes."""
        return channel.unary_unary(
            f"/{_DETECTION}/Detect", request_serializer=_as_it_is, response_deserializer=_as_it_is
        )

    def workers(self, description: DetectionDescription) -> int:
        """Each takes one image at least."""
        return description.workers

    async def describe(self, channel: grpc.aio.Channel, timeout_s: float) -> DetectionDescription:
        """Ask a replica what it is."""
        describe = channel.unary_unary(
            f"/{_DETECTION}/Describe",
            request_serializer=detection_pb2.DescribeRequest.SerializeToString,
            response_deserializer=DetectionDescription.FromString,
        )
        answer: DetectionDescription = await describe(detection_pb2.DescribeRequest(), timeout=timeout_s)
        return answer

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[bool]:
        """Whether it serves, at once and at each change."""
        return _watch(channel, _DETECTION)


class RecognitionWire:
    """Health and description of the recognition stage."""

    service = _RECOGNITION

    def bind(self, channel: grpc.aio.Channel) -> Any:
        """`Recognize`, from bytes to messages."""
        return channel.unary_stream(
            f"/{_RECOGNITION}/Recognize",
            request_serializer=_as_it_is,
            response_deserializer=recognition_pb2.RecognizeResponse.FromString,
        )

    def workers(self, description: RecognitionDescription) -> int:
        """Each takes one crop at least."""
        return description.workers

    async def describe(self, channel: grpc.aio.Channel, timeout_s: float) -> RecognitionDescription:
        """Ask a replica what it is."""
        describe = channel.unary_unary(
            f"/{_RECOGNITION}/Describe",
            request_serializer=recognition_pb2.DescribeRequest.SerializeToString,
            response_deserializer=RecognitionDescription.FromString,
        )
        answer: RecognitionDescription = await describe(recognition_pb2.DescribeRequest(), timeout=timeout_s)
        return answer

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[bool]:
        """Whether it serves, at once and at each change."""
        return _watch(channel, _RECOGNITION)


class _Failures:
    """Decides about the failed calls of one request."""

    def __init__(self, stage: Stage[Any]) -> None:
        self._stage = stage
        self._breaks = 0
        self.avoid: Replica[Any] | None = None

    def handle(self, lease: Lease[Any], failure: grpc.aio.AioRpcError | Unavailable) -> None:
        """Return to try again elsewhere; raise the error otherwise."""
        if isinstance(failure, grpc.aio.AioRpcError):
            error: SluicewayError = from_rpc_error(failure)
            named = any(key == DETAILS_KEY for key, _ in failure.trailing_metadata() or ())
        else:
            error, named = failure, False
        if not isinstance(error, (*_BROKEN, QueueFull)):
            raise error from None
        if not named:
            if _OVER_LIMIT in error.message:
                raise ImageTooLarge(
                    f"the image or its crops are over max_message_bytes of the orchestrator or of {self._stage.name}",
                    metadata={"limit": error.message},
                ) from None
            self._breaks += 1
        self.avoid = lease.replica
        if not self._stage.recover(lease, error, self._breaks, named=named):
            raise Unavailable(f"{self._stage.name} broke off", retry_after_s=1.0) from None


class DetectionClient:
    """Detects images, anywhere in the stage. The image's bytes are copied once, into the message."""

    def __init__(self, stage: Stage[DetectionDescription]) -> None:
        self.stage = stage

    async def detect(self, image: bytes, request_tail: bytes, ticket: Ticket) -> Detected:
        """Detect one image.

        Args:
            image: the file.
            request_tail: every other field of `DetectRequest`, serialised.
            ticket: for whom.

        Raises:
            ImageTooLarge: the image, or the answer with its crops, fits in no message.
            SluicewayError: the stage's own error, or Unavailable, DeadlineExceeded.
        """
        request = b"".join((bytes_field(1, len(image)), image, request_tail))
        failures = _Failures(self.stage)
        while True:
            with await self.stage.lease(ticket, 1, avoid=failures.avoid) as lease:
                try:
                    message: bytes = await lease.replica.call(
                        request, timeout=_remaining_s(ticket.deadline), metadata=ticket.metadata
                    )
                except grpc.aio.AioRpcError as error:
                    failures.handle(lease, error)
                    continue
                rest, spans = split_crops(message)
                response = detection_pb2.DetectResponse.FromString(rest)
                lease.report(_report(response.load))
                self.stage.retries.earn()
                return Detected(
                    width=response.width,
                    height=response.height,
                    opaque=response.detections,
                    ids=tuple(detection.id for detection in response.detections),
                    boxes_xyxy_px=[_upright(detection.geometry) for detection in response.detections],
                    crops=_by_model(message, spans),
                    model=_model(response.model),
                    timings=_timings(response.timings),
                )


@dataclass(frozen=True, slots=True)
class Answer:
    """Some recognitions, with what the stage said beside them."""

    recognized: Recognized
    model: Model | None
    timings: StageTimings


class RecognitionClient:
    """Recognises crops, anywhere in the stage; each crop is answered exactly once, whatever breaks."""

    def __init__(self, stage: Stage[RecognitionDescription]) -> None:
        self.stage = stage

    async def recognize(self, crops: Crops, request_head: bytes, ticket: Ticket) -> AsyncGenerator[Answer, None]:
        """Recognise the crops of one model and give the answers as they come.

        When a call breaks off, only the crops that were not answered are sent again. When it cannot be repeated they
        are answered with the error, so that none is missing; this iterator raises nothing but cancellation. Close it.

        Args:
            crops: not empty.
            request_head: every other field of `RecognizeRequest`, serialised.
            ticket: for whom.
        """
        pending: dict[int, CropSpan] = {span.crop_id: span for span in crops.spans}
        failures = _Failures(self.stage)
        try:
            while pending:
                with await self.stage.lease(ticket, len(pending), avoid=failures.avoid) as lease:
                    request = join_spans(crops.message, pending.values(), prefix=request_head)
                    try:
                        async for response in self._call(lease, request, ticket):
                            fresh = [item for item in response.recognitions if pending.pop(item.crop_id, None)]
                            lease.report(_report(response.load))
                            lease.settle(len(fresh))
                            if fresh:
                                yield Answer(
                                    _recognized(crops.model, fresh), _model(response.model), _timings(response.timings)
                                )
                        if pending:
                            failures.handle(lease, Unavailable("the stage left crops unanswered"))
                        else:
                            self.stage.retries.earn()
                    except grpc.aio.AioRpcError as error:
                        if pending:
                            failures.handle(lease, error)
        except SluicewayError as error:
            message = error_to_proto(error)
            missing = [recognition_pb2.Recognition(crop_id=crop_id, error=message) for crop_id in pending]
            yield Answer(_recognized(crops.model, missing), None, StageTimings())

    async def _call(
        self, lease: Lease[RecognitionDescription], request: bytes, ticket: Ticket
    ) -> AsyncIterator[recognition_pb2.RecognizeResponse]:
        call = lease.replica.call(request, timeout=_remaining_s(ticket.deadline), metadata=ticket.metadata)
        try:
            while isinstance(response := await call.read(), recognition_pb2.RecognizeResponse):
                yield response
        finally:
            # An abandoned call would go on, and leak: it is ended here whatever the reason for leaving.
            call.cancel()


def _remaining_s(deadline: Deadline) -> float:
    remaining_s = deadline.remaining_s()
    if remaining_s <= 0:
        raise DeadlineExceeded("the time ran out before a stage was called")
    return remaining_s


def _recognized(model: str, items: list[recognition_pb2.Recognition]) -> Recognized:
    failed = sum(item.WhichOneof("result") == "error" for item in items)
    return Recognized(model, items, tuple(item.crop_id for item in items), failed)


def _by_model(message: bytes, spans: Sequence[CropSpan]) -> tuple[Crops, ...]:
    groups: dict[str, dict[int, CropSpan]] = {}
    for span in spans:
        groups.setdefault(span.model, {})[span.crop_id] = span
    return tuple(Crops(model, message, tuple(group.values())) for model, group in groups.items())


def _upright(geometry: geometry_pb2.Geometry) -> tuple[float, float, float, float]:
    """The upright box around a shape; an empty one for a kind that this release does not know."""
    kind = geometry.WhichOneof("shape")
    if kind == "box":
        box = geometry.box
        return box.x0, box.y0, box.x1, box.y1
    if kind == "polygon" and geometry.polygon.points:
        xs = [point.x for point in geometry.polygon.points]
        ys = [point.y for point in geometry.polygon.points]
        return min(xs), min(ys), max(xs), max(ys)
    if kind == "rotated_box":
        turned = geometry.rotated_box
        across, down = abs(cos(radians(turned.angle_degrees))), abs(sin(radians(turned.angle_degrees)))
        half_width = (turned.width * across + turned.height * down) / 2
        half_height = (turned.width * down + turned.height * across) / 2
        x, y = turned.center.x, turned.center.y
        return x - half_width, y - half_height, x + half_width, y + half_height
    return 0.0, 0.0, 0.0, 0.0


def _report(load: model_pb2.Load) -> Report:
    return Report(load.queued, load.running, load.capacity, load.queue_ms)


def _model(model: model_pb2.Model) -> Model:
    return Model(model.name, model.version, model.weights_sha256)


def _timings(timings: model_pb2.StageTimings) -> StageTimings:
    return StageTimings(timings.queue_ms, timings.compute_ms, timings.total_ms, timings.decode_ms)
