"""The calls of detection stages: an image, or crops of one, to any replica of a version; retried where that is safe."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc.aio
from sluiceway_runtime.clock import monotonic

from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway_orchestrator.events import Model, StageTimings
from sluiceway_orchestrator.stages.calls import (
    Failures,
    as_it_is,
    call_metadata,
    model_of,
    remaining_s,
    report_of,
    timings_of,
    watch,
)
from sluiceway_orchestrator.stages.group import Group
from sluiceway_orchestrator.stages.stage import Stage, Ticket
from sluiceway_orchestrator.story import Begin, unrecorded
from sluiceway_orchestrator.wire import Buffers, CropSpan, split_crops, split_field

__all__ = ["DetectionClient", "DetectionDescription", "DetectionWire", "Found", "Outgrown"]

_SERVICE = "sluiceway.detection.v1.DetectionService"
_DETECTIONS_FIELD = 3

DetectionDescription = detection_pb2.DescribeResponse


class DetectionWire:
    """Health and description of a detection stage."""

    service = _SERVICE

    def bind(self, channel: grpc.aio.Channel) -> Any:
        """`Detect`, from bytes to bytes."""
        return channel.unary_unary(f"/{_SERVICE}/Detect", request_serializer=as_it_is, response_deserializer=as_it_is)

    def workers(self, description: DetectionDescription) -> int:
        """Each takes one image at least."""
        return description.workers

    def declared_group(self, description: DetectionDescription) -> str:
        """What the server says itself."""
        return description.group

    def group(self, description: DetectionDescription) -> str:
        """What the server says, or for one that says nothing all that its answers depend on."""
        if description.group:
            return description.group
        plain = detection_pb2.DescribeResponse(
            model=description.model, classes=description.classes, crop_spec=description.crop_spec
        )
        return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()[:16]

    async def describe(self, channel: grpc.aio.Channel, timeout_s: float) -> DetectionDescription:
        """Ask a replica what it is."""
        describe = channel.unary_unary(
            f"/{_SERVICE}/Describe",
            request_serializer=detection_pb2.DescribeRequest.SerializeToString,
            response_deserializer=DetectionDescription.FromString,
        )
        answer: DetectionDescription = await describe(detection_pb2.DescribeRequest(), timeout=timeout_s)
        return answer

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[bool]:
        """Whether it serves, at once and at each change."""
        return watch(channel, _SERVICE)


class Found(NamedTuple):
    """What detection answered. Ids are those of the stage, local to this answer.

    Attributes:
        width: of the image in pixels, 0 where crops were looked at.
        height: likewise.
        regions: `Region` messages, with the ids and in the frame of the stage.
        message: the whole answer, in which the crops lie.
        crops: by spec, those that were cut to it.
        failures: of crops, by their id.
        notices: `Notice` messages.
        answered_s: when the answer was there.
    """

    width: int
    height: int
    regions: pipeline_pb2.Regions
    message: bytes
    crops: Mapping[str, tuple[CropSpan, ...]]
    failures: Mapping[int, Any]
    notices: Sequence[Any]
    model: Model
    timings: StageTimings
    answered_s: float = 0.0


class Outgrown(Exception):
    """While a call waited for its turn, answers grew beyond what was reserved for its own: nothing was sent."""


class DetectionClient:
    """Detects in images and in crops, anywhere in the stage. The bytes are copied once, into the message."""

    def __init__(self, stage: Stage[DetectionDescription]) -> None:
        self.stage = stage

    async def detect(
        self,
        request: Buffers,
        cost: int,
        ticket: Ticket,
        group: Group[DetectionDescription],
        has_room: Callable[[], bool] = lambda: True,
        *,
        begin: Begin = unrecorded,
    ) -> Found:
        """Detect in one image, or in several crops.

        Args:
            request: a `DetectRequest` in pieces.
            cost: images, or crops.
            ticket: for whom.
            group: the version that the source is bound to.
            has_room: asked before it is sent, whether there is still room for the answer.
            begin: notes each attempt.

        Raises:
            Outgrown: there is none.
            GroupGone: that version is not there any more.
            ImageTooLarge: the request, or the answer with its crops, fits in no message.
            SluicewayError: the stage's own error, or Unavailable, DeadlineExceeded, QueueFull.
        """
        failures = Failures(self.stage, group)
        metadata = call_metadata(ticket, group, request.size_bytes)
        while True:
            with (
                begin(cost) as attempt,
                await self.stage.lease(ticket, cost, group, avoid=failures.avoid) as lease,
            ):
                if not has_room():
                    raise Outgrown
                attempt.sent(lease.replica.address)
                try:
                    message: bytes = await lease.replica.call(
                        request.join(),
                        timeout=remaining_s(ticket.deadline),
                        metadata=(*metadata, *attempt.headers),
                    )
                except grpc.aio.AioRpcError as error:
                    failures.handle(lease, error, attempt)
                    continue
                attempt.ended_s = monotonic()
                rest, spans = split_crops(message)
                detections, rest = split_field(rest, _DETECTIONS_FIELD)
                response = detection_pb2.DetectResponse.FromString(rest)
                lease.report(report_of(response.load))
                self.stage.retries.earn()
                timings = timings_of(response.timings)
                attempt.told(len(response.failures), timings, response.timings.call)
                return Found(
                    width=response.width,
                    height=response.height,
                    regions=pipeline_pb2.Regions.FromString(detections),
                    message=message,
                    crops=_by_spec(spans),
                    failures={failure.crop_id: failure.error for failure in response.failures},
                    notices=response.notices,
                    model=model_of(response.model),
                    timings=timings,
                    answered_s=attempt.ended_s,
                )


def _by_spec(spans: Sequence[CropSpan]) -> dict[str, tuple[CropSpan, ...]]:
    groups: dict[str, list[CropSpan]] = {}
    for span in spans:
        groups.setdefault(span.spec, []).append(span)
    return {name: tuple(group) for name, group in groups.items()}
