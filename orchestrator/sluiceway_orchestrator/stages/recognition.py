"""The calls of recognition stages: crops to any replica of a version; only what was not answered is sent again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import SluicewayError, Unavailable
from sluiceway_runtime.server.convert import error_to_proto
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2
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
from sluiceway_orchestrator.stages.stage import Lease, Stage, Ticket
from sluiceway_orchestrator.story import Attempt, Begin, unrecorded
from sluiceway_orchestrator.wire import Buffers, CropSpan, span_buffers, split_field

__all__ = ["Crops", "Read", "RecognitionClient", "RecognitionDescription", "RecognitionWire", "failed_values"]

_SERVICE = "sluiceway.recognition.v1.RecognitionService"
_RECOGNITIONS_FIELD = 1

RecognitionDescription = recognition_pb2.DescribeResponse


class RecognitionCalls(NamedTuple):
    """Two ways to the same answers.

    Attributes:
        stream: gives them as they come.
        whole: gives all in one message. gRPC has to be woken once for it, and five times for a stream: an orchestrator
            gets a tenth more done with it.
    """

    stream: Callable[..., grpc.aio.UnaryStreamCall[bytes, bytes]]
    whole: Callable[..., grpc.aio.UnaryUnaryCall[bytes, bytes]]


class RecognitionWire:
    """Health and description of a recognition stage."""

    service = _SERVICE

    def bind(self, channel: grpc.aio.Channel) -> RecognitionCalls:
        """`Recognize` and `RecognizeWhole`, from bytes to bytes."""
        serialisers: dict[str, Any] = {"request_serializer": as_it_is, "response_deserializer": as_it_is}
        return RecognitionCalls(
            stream=channel.unary_stream(f"/{_SERVICE}/Recognize", **serialisers),
            whole=channel.unary_unary(f"/{_SERVICE}/RecognizeWhole", **serialisers),
        )

    def workers(self, description: RecognitionDescription) -> int:
        """Each takes one crop at least."""
        return description.workers

    def declared_group(self, description: RecognitionDescription) -> str:
        """What the server says itself."""
        return description.group

    def group(self, description: RecognitionDescription) -> str:
        """What the server says, or for one that says nothing all that its answers depend on."""
        if description.group:
            return description.group
        plain = recognition_pb2.DescribeResponse(
            models=[
                recognition_pb2.ModelDescription(
                    model=entry.model, head=entry.head, crop_spec=entry.crop_spec, labels=entry.labels
                )
                for entry in description.models
            ]
        )
        return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()[:16]

    async def describe(self, channel: grpc.aio.Channel, timeout_s: float) -> RecognitionDescription:
        """Ask a replica what it is."""
        describe = channel.unary_unary(
            f"/{_SERVICE}/Describe",
            request_serializer=recognition_pb2.DescribeRequest.SerializeToString,
            response_deserializer=RecognitionDescription.FromString,
        )
        answer: RecognitionDescription = await describe(recognition_pb2.DescribeRequest(), timeout=timeout_s)
        return answer

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[bool]:
        """Whether it serves, at once and at each change."""
        return watch(channel, _SERVICE)


class Crops(NamedTuple):
    """Crops on their way to a reader: still inside the message that brought them, or an image as it came.

    Attributes:
        message: an answer of detection; empty where `image` is the one crop.
        spans: where they lie in it.
        image: a whole page, as pieces of the one field `crops` of a request.
    """

    message: bytes = b""
    spans: tuple[CropSpan, ...] = ()
    image: Sequence[bytes | memoryview] = ()

    @property
    def ids(self) -> list[int]:
        """What a request calls them."""
        return [span.crop_id for span in self.spans] if self.spans else [0]


class Read(NamedTuple):
    """Some of the answers.

    Attributes:
        values: `Value` messages with the crops' own ids, local to the answer of detection that they lie in.
        ids: of the crops.
        failed: ids of those that are errors.
        size_bytes: of the values.
        model: who read them; None for failures of ours.
        timings: as the stage said.
        call: its number there; 0 where that was not said.
    """

    values: pipeline_pb2.Values
    ids: tuple[int, ...]
    failed: tuple[int, ...]
    size_bytes: int
    model: Model | None
    timings: StageTimings
    call: int = 0


class RecognitionClient:
    """Recognises crops, anywhere in the stage; each crop is answered exactly once, whatever breaks."""

    def __init__(self, stage: Stage[RecognitionDescription]) -> None:
        self.stage = stage

    async def recognize(
        self,
        crops: Crops,
        head: bytes,
        ticket: Ticket,
        group: Group[RecognitionDescription],
        *,
        begin: Begin = unrecorded,
    ) -> AsyncGenerator[Read, None]:
        """Recognise crops and give the answers as they come.

        When a call breaks off, only the crops that were not answered are sent again. When it cannot be repeated they
        are answered with the error, so that none is missing. Close this iterator.

        Args:
            crops: not empty.
            head: every other field of `RecognizeRequest`, serialised.
            ticket: for whom.
            group: the version that the source is bound to.
            begin: notes each attempt.

        Raises:
            GroupGone: that version is not there any more; some crops may have been answered.
        """
        pending = dict.fromkeys(crops.ids)
        spans = {span.crop_id: span for span in crops.spans}
        failures = Failures(self.stage, group)
        most_whole = group.description.whole_crops
        try:
            while pending:
                with (
                    begin(len(pending)) as attempt,
                    await self.stage.lease(ticket, len(pending), group, avoid=failures.avoid) as lease,
                ):
                    wanted = span_buffers(crops.message, [spans[key] for key in pending]) if spans else crops.image
                    request = Buffers((head, *wanted))
                    attempt.sent(lease.replica.address)
                    whole = len(pending) <= most_whole
                    calls: RecognitionCalls = lease.replica.call
                    metadata = (*call_metadata(ticket, group, request.size_bytes), *attempt.headers)
                    given = {"timeout": remaining_s(ticket.deadline), "metadata": metadata}
                    try:
                        if whole:
                            message = await calls.whole(request.join(), **given)
                            read = _take(message, pending, lease, attempt)
                            if read.ids:
                                yield read
                        else:
                            async with aclosing(_messages(calls.stream(request.join(), **given))) as messages:
                                async for message in messages:
                                    read = _take(message, pending, lease, attempt)
                                    if read.ids:
                                        yield read
                        attempt.ended_s = monotonic()
                        if pending:
                            failures.handle(lease, Unavailable("the stage left crops unanswered"), attempt)
                        else:
                            self.stage.retries.earn()
                    except grpc.aio.AioRpcError as error:
                        if whole and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                            # It is older than the one that described this version.
                            attempt.broke(from_rpc_error(error))
                            most_whole = 0
                        elif pending:
                            failures.handle(lease, error, attempt)
        except SluicewayError as error:
            yield failed_values(pending, error)


async def _messages(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> AsyncGenerator[bytes, None]:
    try:
        while isinstance(message := await call.read(), bytes):
            yield message
    finally:
        # An abandoned call would go on, and leak: it is ended here whatever the reason for leaving.
        call.cancel()


def _take(message: bytes, pending: dict[int, None], lease: Lease[Any], attempt: Attempt) -> Read:
    """Read an answer, and note what it says of the replica."""
    read, load = _read(message, pending, lease)
    lease.report(report_of(load))
    lease.settle(len(read.ids))
    attempt.told(len(read.failed), read.timings, read.call)
    return read


def failed_values(ids: Iterable[int], error: SluicewayError) -> Read:
    """Answer crops, or regions, with an error."""
    message = error_to_proto(error)
    values = pipeline_pb2.Values(values=[pipeline_pb2.Value(region_id=key, error=message) for key in ids])
    found = tuple(value.region_id for value in values.values)
    return Read(values, found, found, values.ByteSize(), None, StageTimings())


def _read(message: bytes, pending: dict[int, None], lease: Lease[Any] | None = None) -> tuple[Read, Any]:
    """An answer as the values that clients get, of what was still pending, and the load that it reports."""
    recognitions, rest = split_field(message, _RECOGNITIONS_FIELD)
    response = recognition_pb2.RecognizeResponse.FromString(rest)
    values = pipeline_pb2.Values.FromString(recognitions)
    ids = [value.region_id for value in values.values]
    fresh = [key in pending for key in ids]
    if not all(fresh) or len(set(ids)) < len(ids):
        # A stage that answers twice, or what nobody asked: the first answer counts.
        kept: dict[int, pipeline_pb2.Value] = {}
        for value in values.values:
            if value.region_id in pending:
                kept.setdefault(value.region_id, value)
        values = pipeline_pb2.Values(values=kept.values())
        ids = list(kept)
    for key in ids:
        del pending[key]
    failed = tuple(value.region_id for value in values.values if value.HasField("error"))
    model, timings = model_of(response.model), timings_of(response.timings, lease)
    read = Read(values, tuple(ids), failed, len(recognitions), model, timings, response.timings.call)
    return read, response.load
