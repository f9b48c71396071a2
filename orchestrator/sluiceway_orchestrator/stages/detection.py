"""The calls of detection stages: an image, or crops of one, to any replica of a version; retried where that is safe."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import SluicewayError
from sluiceway_runtime.server.convert import error_from_proto
from sluiceway_runtime.varint import read_varint

from sluiceway.common.v1 import model_pb2
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
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.stages.stage import Lease, Stage, Ticket
from sluiceway_orchestrator.story import Begin, unrecorded
from sluiceway_orchestrator.wire import Buffers, CropSpan, split_crops, split_field

__all__ = ["DetectionClient", "DetectionDescription", "DetectionWire", "Found", "FoundPage", "Outgrown", "PageRange"]

_SERVICE = "sluiceway.detection.v1.DetectionService"
_DETECTIONS_FIELD = 3
_FOUND_FIELD = detection_pb2.DetectPagesResponse.FOUND_FIELD_NUMBER
# Times that a replica gets one document: a first short range of pages, and another one.
MAX_SENDS = 2
# For so long a range waits for a replica that has not had the document, while others have room; and for so long for one
# that may have it.
UNEVEN_S = 0.2
OTHERS_FULL_S = 2.0
OTHERS_FULL_PAUSE_S = 0.02

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
        texts: `Text` messages of the regions, where a page said itself what stands in it; it then has no crops.
        answered_s: when the answer was there.
        call: its number at the replica; 0 where that was not said.
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
    texts: Sequence[Any] = ()
    answered_s: float = 0.0
    call: int = 0


class FoundPage(NamedTuple):
    """What became of a page of a document.

    Attributes:
        number: of the page, from 0.
        page_count: of the document; 0 where the stage does not know it.
        found: what was found, or why nothing can be.
    """

    number: int
    page_count: int
    found: Found | SluicewayError


class PageRange(NamedTuple):
    """Pages to ask for.

    Attributes:
        first: number of the first, from 0.
        most: at most so many; 0 for all that follow.
        answered: of the whole document, those that need not be asked for; it grows.
    """

    first: int
    most: int
    answered: set[int]

    @property
    def answered_within(self) -> Iterator[int]:
        """Those of them in this range."""
        end = self.first + self.most if self.most else None
        return (page for page in self.answered if page >= self.first and (end is None or page < end))


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
                found, load = _found_of(message, lease, attempt.ended_s)
                lease.report(report_of(load))
                self.stage.retries.earn()
                attempt.told(len(found.failures), found.timings, found.call)
                return found

    async def detect_pages(
        self,
        document: Buffers,
        pages: PageRange,
        ticket: Ticket,
        group: Group[DetectionDescription],
        *,
        cost: int,
        sent: Counter[Replica[DetectionDescription]],
        prefers_text: bool = False,
        begin: Begin = unrecorded,
    ) -> AsyncGenerator[FoundPage, None]:
        """Detect in pages of a document, and give answers as they come, each page once. Close this iterator.

        Where a call breaks off, what has not been answered is asked of another replica.

        Args:
            document: a `DetectPagesRequest` in pieces, without its pages.
            pages: which; those that are answered are added to `answered`.
            ticket: for whom.
            group: the version that the source is bound to.
            cost: pages that a replica works on at a time.
            sent: how often each replica got the document; see `MAX_SENDS`.
            prefers_text: of pages that hold text, take that.
            begin: notes each attempt.

        Raises:
            GroupGone: that version is not there any more.
            ImageTooLarge: the request fits in no message.
            SluicewayError: the document cannot be read, or the stage's own error.
        """
        failures = Failures(self.stage, group)
        while True:
            asked = detection_pb2.DetectPagesRequest(
                first_page=pages.first,
                max_pages=pages.most,
                except_pages=sorted(pages.answered_within),
                text_layer=model_pb2.TEXT_LAYER_PREFER if prefers_text else model_pb2.TEXT_LAYER_UNSPECIFIED,
            )
            request = Buffers((*document.parts, asked.SerializeToString()))
            with (
                begin(cost) as attempt,
                await self._place_for_document(cost, ticket, group, sent, failures.avoid) as lease,
            ):
                sent[lease.replica] += 1
                attempt.sent(lease.replica.address)
                try:
                    async with aclosing(self._pages_call(lease, request, ticket, group, attempt.headers)) as messages:
                        async for message in messages:
                            page, load = _page_of(message)
                            if load is not None:
                                lease.report(report_of(load))
                            if isinstance(page.found, Found):
                                attempt.told(len(page.found.failures), page.found.timings, page.found.call)
                                page = page._replace(found=page.found._replace(answered_s=monotonic()))
                            if page.number not in pages.answered:
                                pages.answered.add(page.number)
                                yield page
                except grpc.aio.AioRpcError as error:
                    failures.handle(lease, error, attempt)
                else:
                    self.stage.retries.earn()
                    return

    async def _place_for_document(
        self,
        cost: int,
        ticket: Ticket,
        group: Group[DetectionDescription],
        sent: Counter[Replica[DetectionDescription]],
        avoid: Replica[DetectionDescription] | None,
    ) -> Lease[DetectionDescription]:
        """A place at a replica that has not had the document too often; at any, where others stay full for long."""
        begun_s, tries = monotonic(), 0
        while True:
            lease = await self.stage.lease(ticket, cost, group, avoid=avoid)
            members = self.stage.members_of(group)
            times, waited_s = sent[lease.replica], monotonic() - begun_s
            if (
                times <= min((sent[member] for member in members), default=0)
                or (waited_s > UNEVEN_S and times < MAX_SENDS)
                or waited_s > OTHERS_FULL_S
            ):
                return lease
            # Given back, and not waited for in the line: nobody behind it is kept from a replica that has room.
            with lease:
                avoid = lease.replica
            tries += 1
            # Another one may be chosen at once, if it is a matter of luck.
            await asyncio.sleep(0 if tries < 2 * len(members) else OTHERS_FULL_PAUSE_S)

    async def _pages_call(
        self,
        lease: Lease[DetectionDescription],
        request: Buffers,
        ticket: Ticket,
        group: Group[Any],
        headers: tuple[tuple[str, str], ...],
    ) -> AsyncGenerator[bytes, None]:
        method = lease.replica.channel.unary_stream(
            f"/{_SERVICE}/DetectPages", request_serializer=as_it_is, response_deserializer=as_it_is
        )
        call = method(
            request.join(),
            timeout=remaining_s(ticket.deadline),
            metadata=(*call_metadata(ticket, group, request.size_bytes), *headers),
        )
        try:
            while isinstance(message := await call.read(), bytes):
                yield message
        finally:
            # An abandoned call would go on, and leak: it is ended here whatever the reason for leaving.
            call.cancel()


def _found_of(message: bytes, lease: Lease[Any] | None = None, answered_s: float = 0.0) -> tuple[Found, Any]:
    """An answer, and the load that it reports; without its lease it is one of several of a call."""
    rest, spans = split_crops(message)
    detections, rest = split_field(rest, _DETECTIONS_FIELD)
    response = detection_pb2.DetectResponse.FromString(rest)
    found = Found(
        width=response.width,
        height=response.height,
        regions=pipeline_pb2.Regions.FromString(detections),
        message=message,
        crops=_by_spec(spans),
        failures={failure.crop_id: failure.error for failure in response.failures},
        notices=response.notices,
        model=model_of(response.model),
        timings=timings_of(response.timings, lease),
        answered_s=answered_s,
        call=response.timings.call,
    )
    return found, response.load


def _page_of(message: bytes) -> tuple[FoundPage, Any]:
    """The answer for a page, and the load that it reports, if it does."""
    field, rest = split_field(message, _FOUND_FIELD)
    response = detection_pb2.DetectPagesResponse.FromString(rest)
    if not field:
        return FoundPage(response.page, response.page_count, error_from_proto(response.error)), None
    # Behind the tag and the length.
    _, start = read_varint(field, 1)
    found, load = _found_of(field[start:])
    for notice in found.notices:
        notice.page = response.page
    return FoundPage(response.page, response.page_count, found._replace(texts=response.texts)), load


def _by_spec(spans: Sequence[CropSpan]) -> dict[str, tuple[CropSpan, ...]]:
    groups: dict[str, list[CropSpan]] = {}
    for span in spans:
        groups.setdefault(span.spec, []).append(span)
    return {name: tuple(group) for name, group in groups.items()}
