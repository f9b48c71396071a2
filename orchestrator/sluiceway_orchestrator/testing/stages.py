"""Stages without models: real gRPC servers that answer at once, or as a test tells them to.

A picture is a few bytes that begin like a JPEG and say which number it has and how many regions; the text of a region
is `NUMBER:REGION`, so a client can account for everything that it gets.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from sluiceway_runtime.errors import InvalidImage, SluicewayError, UnknownModel
from sluiceway_runtime.server.convert import error_to_proto
from sluiceway_runtime.server.status import code_of, trailers

from sluiceway.common.v1 import crop_pb2, model_pb2, value_pb2
from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc

__all__ = ["FakeDetection", "FakeRecognition", "FakeServer", "document", "picture", "picture_number"]

Context = grpc.aio.ServicerContext[Any, Any]

_MAGIC = b"\xff\xd8\xff\xe0"
_HEADER = struct.Struct(">4sIII")
_PDF = b"%PDF-"
_DOCUMENT = struct.Struct(">IIII")
_LINE_PX = 20
SERVICES = {
    "detection": "sluiceway.detection.v1.DetectionService",
    "recognition": "sluiceway.recognition.v1.RecognitionService",
}
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]


def picture(number: int, *, regions: int = 2, size_bytes: int = 64, crop_bytes: int = 48) -> bytes:
    """A picture that `FakeDetection` finds `regions` lines in, each cut to `crop_bytes` of pixels."""
    head = _HEADER.pack(_MAGIC, number, regions, crop_bytes)
    return head + bytes(max(0, size_bytes - len(head)))


def document(number: int, pages: int, *, regions: int = 2, size_bytes: int = 64, crop_bytes: int = 48) -> bytes:
    """A document of so many pictures, numbered `1000 * number` and on, as `FakeDetection` reads it."""
    head = _PDF + _DOCUMENT.pack(number, pages, regions, crop_bytes)
    return head + bytes(max(0, size_bytes - len(head)))


def picture_number(image: bytes) -> tuple[int, int, int]:
    """Number, regions and crop bytes of a picture."""
    _, number, regions, crop_bytes = _HEADER.unpack_from(image)
    return number, regions, crop_bytes


@dataclass
class FakeDetection(detection_pb2_grpc.DetectionServiceServicer):
    """Finds what the picture says.

    Attributes:
        before: awaited before each answer; may wait, and may raise a `SluicewayError` that the client then gets.
        seen: how often each picture came.
        version: of its weights, by which replicas differ.
        inside: regions that it finds in each crop.
        crops_seen: crops that came.
        workers: pages that it answers at a time.
        damaged: pages of documents that it cannot read.
        with_text: pages that hold text.
        documents, document_bytes: documents that came, and how large they were together.
        pages_seen: how often each page of a document was computed.
        running, cancelled: calls in progress, and calls that were cancelled.
    """

    capacity: int = 64
    classes: tuple[str, ...] = ("textline", "image")
    class_of: Callable[[int], int] = lambda _region: 0
    before: Callable[[int], Awaitable[None]] | None = None
    seen: Counter[int] = field(default_factory=Counter)
    priorities: list[int] = field(default_factory=list)
    version: str = "1"
    inside: int = 2
    crops_seen: int = 0
    workers: int = 1
    damaged: frozenset[int] = frozenset()
    with_text: frozenset[int] = frozenset()
    documents: int = 0
    document_bytes: int = 0
    pages_seen: Counter[int] = field(default_factory=Counter)
    running: int = 0
    cancelled: int = 0

    async def Detect(  # noqa: N802 - the contract's name
        self, request: detection_pb2.DetectRequest, context: Context
    ) -> detection_pb2.DetectResponse:
        """Answer with a column of lines."""
        if request.crops:
            return await self._detect_inside(request, context)
        number, regions, crop_bytes = picture_number(request.image)
        self.seen[number] += 1
        self.priorities.append(request.priority)
        self.running += 1
        try:
            if self.before is not None:
                await self.before(number)
        except SluicewayError as error:
            await context.abort(code_of(error), error.message, trailers(error))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        answer = self._answer(640, max(480, regions * _LINE_PX))
        self._add_lines(answer, request, regions, number, crop_bytes)
        return answer

    async def DetectPages(  # noqa: N802 - the contract's name
        self, request: detection_pb2.DetectPagesRequest, context: Context
    ) -> AsyncIterator[detection_pb2.DetectPagesResponse]:
        """Answer for each page, the later of two that are done together first; `before` may end the call."""
        number, pages, regions, crop_bytes = _DOCUMENT.unpack_from(request.document, len(_PDF))
        self.documents += 1
        self.document_bytes += len(request.document)
        end = min(pages, request.first_page + request.max_pages) if request.max_pages else pages
        wanted = [page for page in range(request.first_page, end) if page not in request.except_pages]
        self.running += 1
        try:
            for start in range(0, len(wanted), self.workers):
                for page in reversed(wanted[start : start + self.workers]):
                    if self.before is not None:
                        await self.before(1000 * number + page)
                    self.pages_seen[page] += 1
                    response = detection_pb2.DetectPagesResponse(page=page, page_count=pages)
                    if page in self.damaged:
                        response.error.CopyFrom(error_to_proto(InvalidImage("the page is damaged")))
                    else:
                        response.found.CopyFrom(self._answer(640, max(480, regions * _LINE_PX)))
                        self._add_lines(response.found, request, regions, 1000 * number + page, crop_bytes)
                        if request.text_layer == model_pb2.TEXT_LAYER_PREFER and page in self.with_text:
                            del response.found.crops[:]
                            response.texts.extend(
                                value_pb2.Text(text=f"said {page}:{region}", confidence=1) for region in range(regions)
                            )
                    yield response
        except SluicewayError as error:
            await context.abort(code_of(error), error.message, trailers(error))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def _add_lines(
        self,
        answer: detection_pb2.DetectResponse,
        request: detection_pb2.DetectRequest | detection_pb2.DetectPagesRequest,
        regions: int,
        number: int,
        crop_bytes: int,
    ) -> None:
        for region in range(regions):
            # From the bottom up, so that the reading order is not the order of the ids.
            top = (regions - 1 - region) * _LINE_PX
            box = (10, top, 90, top + _LINE_PX - 4)
            self._add(answer, request, region, box, (number, region, crop_bytes))

    async def _detect_inside(
        self, request: detection_pb2.DetectRequest, context: Context
    ) -> detection_pb2.DetectResponse:
        """In each crop `inside` lines, one below the other, of a tenth of its frame."""
        self.crops_seen += len(request.crops)
        if self.before is not None:
            try:
                await self.before(-1)
            except SluicewayError as error:
                await context.abort(code_of(error), error.message, trailers(error))
        answer = self._answer(0, 0)
        for crop in request.crops:
            number, region = struct.unpack_from(">II", crop.raw.data)
            for line in range(self.inside):
                facts = (number, region * 100 + line, 48)
                found = self._add(answer, request, len(answer.detections), (0, line, 1, line + 1), facts)
                found.parent_id = crop.id
        return answer

    def _answer(self, width: int, height: int) -> detection_pb2.DetectResponse:
        return detection_pb2.DetectResponse(
            width=width,
            height=height,
            model=model_pb2.Model(name="fake-detector", version=self.version, weights_sha256="d" * 64),
            timings=model_pb2.StageTimings(compute_ms=1, total_ms=2),
            load=model_pb2.Load(running=self.running + 1, capacity=self.capacity),
        )

    def _add(
        self,
        answer: detection_pb2.DetectResponse,
        request: detection_pb2.DetectRequest | detection_pb2.DetectPagesRequest,
        region: int,
        box: tuple[float, float, float, float],
        facts: tuple[int, int, int],
    ) -> detection_pb2.Detection:
        """Add a region and its crops; the crops say `facts`: number of the picture, of the region, and their size."""
        class_id = self.class_of(region)
        found = answer.detections.add(id=region, class_id=class_id, class_name=self.classes[class_id], confidence=0.9)
        shape = found.geometry.box
        shape.x0, shape.y0, shape.x1, shape.y1 = box
        number, name, crop_bytes = facts
        for spec in request.crop_specs:
            if not spec.classes or self.classes[class_id] in spec.classes:
                pixels = struct.pack(">II", number, name).ljust(crop_bytes, b"\x7f")
                raw = crop_pb2.RawImage(height=1, width=crop_bytes // 3, data=pixels)
                crop = answer.crops.add(id=region, spec=spec.name, raw=raw)
                if spec.resize_rule == crop_pb2.RESIZE_RULE_FIT_LONGEST:
                    crop.to_image.matrix.extend((1, 0, box[0], 0, 1, box[1], 0, 0, 1))
        return found

    async def Describe(  # noqa: N802 - the contract's name
        self, request: detection_pb2.DescribeRequest, context: Context
    ) -> detection_pb2.DescribeResponse:
        """Say what a detector says."""
        del request, context
        return detection_pb2.DescribeResponse(
            server_version="test",
            model=model_pb2.Model(name="fake-detector", version=self.version, weights_sha256="d" * 64),
            classes=self.classes,
            workers=self.workers,
            max_document_pages=1000,
            crop_spec=crop_pb2.CropSpec(max_width=640, resize_rule=crop_pb2.RESIZE_RULE_FIT_LONGEST),
        )


@dataclass
class FakeRecognition(recognition_pb2_grpc.RecognitionServiceServicer):
    """Reads what `FakeDetection` wrote.

    Attributes:
        before: awaited before each crop's answer, with the picture's number and the region.
        group: crops in one message.
        whole_crops: said in its description; what comes to `RecognizeWhole` is counted in `wholes`.
        seen: how often each crop came.
    """

    capacity: int = 256
    models: tuple[str, ...] = ("fake-reader",)
    group: int = 16
    whole_crops: int = 0
    wholes: int = 0
    before: Callable[[int, int], Awaitable[None]] | None = None
    seen: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    running: int = 0
    cancelled: int = 0

    async def Recognize(  # noqa: N802 - the contract's name
        self, request: recognition_pb2.RecognizeRequest, context: Context
    ) -> AsyncGenerator[recognition_pb2.RecognizeResponse, None]:
        """Answer in groups."""
        self.running += len(request.crops)
        left = len(request.crops)
        if request.options.model not in ("", *self.models):
            unknown = UnknownModel("no model of this name is served")
            await context.abort(code_of(unknown), unknown.message, trailers(unknown))
        model = model_pb2.Model(name=request.options.model, version="1", weights_sha256="e" * 64)
        try:
            group = self.group if self.before is None else 1
            for start in range(0, len(request.crops), group):
                answer = recognition_pb2.RecognizeResponse(
                    model=model, load=model_pb2.Load(running=left, capacity=self.capacity)
                )
                for crop in request.crops[start : start + group]:
                    number, region = _named(crop)
                    self.seen[request.options.model, number, region] += 1
                    if self.before is not None:
                        await self.before(number, region)
                    text = value_pb2.Text(text=f"{number}:{region}", confidence=0.8)
                    answer.recognitions.add(crop_id=crop.id, text=text)
                yield answer
                left -= len(answer.recognitions)
                self.running -= len(answer.recognitions)
        except SluicewayError as error:
            await context.abort(code_of(error), error.message, trailers(error))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= left

    async def RecognizeWhole(  # noqa: N802 - the contract's name
        self, request: recognition_pb2.RecognizeRequest, context: Context
    ) -> recognition_pb2.RecognizeResponse:
        """Answer once."""
        self.wholes += 1
        whole = recognition_pb2.RecognizeResponse()
        async with aclosing(self.Recognize(request, context)) as answers:
            async for answer in answers:
                whole.MergeFrom(answer)
        return whole

    async def Describe(  # noqa: N802 - the contract's name
        self, request: recognition_pb2.DescribeRequest, context: Context
    ) -> recognition_pb2.DescribeResponse:
        """Say what a recogniser says."""
        del request, context
        return recognition_pb2.DescribeResponse(
            server_version="test",
            workers=1,
            models=[
                recognition_pb2.ModelDescription(
                    model=model_pb2.Model(name=name, version="1", weights_sha256="e" * 64),
                    head=recognition_pb2.HEAD_TEXT,
                    crop_spec=crop_pb2.CropSpec(name=name, height=48, max_width=320),
                )
                for name in self.models
            ],
            whole_crops=self.whole_crops,
        )


def _named(crop: crop_pb2.Crop) -> tuple[int, int]:
    """Number of the picture, and of the region; of a whole page the number and 0."""
    if crop.HasField("raw"):
        number, region = struct.unpack_from(">II", crop.raw.data)
        return number, region
    return picture_number(crop.encoded)[0], 0


class FakeServer:
    """A fake stage on a port of its own, with health, and a limit of its own on messages."""

    def __init__(self, stage: FakeDetection | FakeRecognition, *, max_message_bytes: int = 64 * 2**20) -> None:
        self.stage = stage
        self.kind = "detection" if isinstance(stage, FakeDetection) else "recognition"
        self.name = SERVICES[self.kind]
        self.health = health.aio.HealthServicer()
        limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("receive", "send")]
        self.server = grpc.aio.server(options=[*OPTIONS, *limits])
        if isinstance(stage, FakeDetection):
            detection_pb2_grpc.add_DetectionServiceServicer_to_server(stage, self.server)
        else:
            recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(stage, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = ""

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Listen and serve; returns `host:port`."""
        port = self.server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        await self.serving(yes=True)
        await self.server.start()
        return self.address

    async def serving(self, *, yes: bool) -> None:
        """Change what health says."""
        kinds = health_pb2.HealthCheckResponse
        await self.health.set(self.name, kinds.SERVING if yes else kinds.NOT_SERVING)

    async def stop(self) -> None:
        """End at once; calls in progress break off."""
        await self.server.stop(None)
