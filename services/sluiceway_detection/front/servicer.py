"""`sluiceway.detection.v1.DetectionService`: convert, ask the pool, convert back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import SluicewayError, Unavailable
from sluiceway_runtime.images.header import ImageHeader
from sluiceway_runtime.images.limits import ImageLimits, check_image, check_size
from sluiceway_runtime.pool import Pool, Priority, Work
from sluiceway_runtime.recorder import current_call
from sluiceway_runtime.release import release
from sluiceway_runtime.server.calls import deadline_of, request_id_of
from sluiceway_runtime.server.convert import error_to_proto, set_load

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front import convert
from sluiceway_detection.front.flow import answers_of
from sluiceway_detection.front.identity import Identity
from sluiceway_detection.front.paging import answers_of_pages
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.worker.handler import DetectionFacts

__all__ = ["DetectionServicer", "DetectionStage", "add_to_server"]

Context = grpc.aio.ServicerContext[Any, Any]

# What a page is taken for when batches are made up: A4 at 200 dpi. How large it is shows when it has been rendered.
PAGE_PX = 4_000_000


class DetectionStage(Protocol):
    """What the servicer needs of the service."""

    @property
    def pool(self) -> Pool | None:
        """None until started."""

    @property
    def facts(self) -> DetectionFacts | None:
        """None until started."""

    @property
    def identity(self) -> Identity | None:
        """None until started."""

    @property
    def group(self) -> str:
        """Of the version; empty until started."""
        ...


class DetectionServicer:
    """Answers calls; holds nothing between them."""

    def __init__(self, stage: DetectionStage, config: DetectionConfig) -> None:
        self._stage = stage
        self._config = config
        self._limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)

    @property
    def _max_crops(self) -> int:
        """Of a request; all of them have to find room in the queue."""
        pool, most = self._stage.pool, self._config.max_crops
        return most if pool is None else min(most, pool.limits.queue_items)

    async def detect(self, request: convert.Request, context: Context) -> pb.DetectResponse:
        """Detect the regions of one image, or of several crops; see the contract's `Detect`."""
        return await self.answer(request, request_id_of(context), deadline_of(context, self._config))

    async def answer(self, request: convert.Request, request_id: str, deadline: Deadline) -> pb.DetectResponse:
        """The same for a call that came in another way."""
        arrived_s = monotonic()
        pool, facts, identity = self._stage.pool, self._stage.facts, self._stage.identity
        if pool is None or facts is None or identity is None:
            raise Unavailable("the server is starting", retry_after_s=1.0)
        job = convert.job_of(request.message, self._defaults(facts))
        priority = convert.priority_of(request.message.priority)
        convert.check_crops(request, self._max_crops)
        asked = _Asked(job, facts, request_id, deadline, priority)
        response = pb.DetectResponse(model=convert.model_message(identity))
        if request.crops:
            await self._look_at_crops(request.crops, asked, pool, response)
        else:
            await self._look_at_image(request.image, asked, pool, response)
        response.timings.total_ms = (monotonic() - arrived_s) * 1000
        response.timings.call = current_call.get()
        set_load(response.load, pool.load())
        return response

    async def detect_pages(
        self, request: convert.PagesRequest, context: Context
    ) -> AsyncGenerator[pb.DetectPagesResponse, None]:
        """Detect the regions of pages of a document; see the contract's `DetectPages`."""
        arrived_s = monotonic()
        pool, facts, identity = self._stage.pool, self._stage.facts, self._stage.identity
        if pool is None or facts is None or identity is None:
            raise Unavailable("the server is starting", retry_after_s=1.0)
        job = convert.job_of(request.message, self._defaults(facts))
        priority = convert.priority_of(request.message.priority)
        job = job._replace(prefers_text=convert.prefers_text(request.message))
        pages = convert.page_range_of(request)
        check_size(request.document, self._limits)
        answers = answers_of_pages(
            pool,
            lambda number: job._replace(page=number).payload(request.document),
            pages,
            # As many as can be computed, and one that is there when the first of them is done.
            at_once=max(1, min(pool.load().capacity + 1, pool.limits.queue_items // 2)),
            cost=PAGE_PX,
            request_id=request_id_of(context),
            deadline=deadline_of(context, self._config),
            priority=priority,
        )
        async with contextlib.aclosing(answers):
            async for number, page_count, outcome in answers:
                response = pb.DetectPagesResponse(page=number, page_count=page_count)
                try:
                    if isinstance(outcome, SluicewayError):
                        raise outcome
                    found = response.found
                    found.model.CopyFrom(convert.model_message(identity))
                    convert.add_answer(found, outcome, job.crops, facts.classes)
                    convert.add_texts(response, outcome)
                    found.timings.total_ms = (monotonic() - arrived_s) * 1000
                    set_load(found.load, pool.load())
                except SluicewayError as error:
                    response.error.CopyFrom(error_to_proto(error))
                yield response

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:  # noqa: N802, ARG002
        """Say what is served; see the contract. Without the model while the server starts."""
        config, pool, facts, identity = self._config, self._stage.pool, self._stage.facts, self._stage.identity
        response = pb.DescribeResponse(
            server_version=release(),
            default_options=pb.DetectOptions(
                confidence=config.confidence,
                iou=config.iou,
                max_detections=config.max_detections,
                class_agnostic=config.class_agnostic,
            ),
            workers=len(pool.statistics().workers) if pool is not None else 0,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=config.max_image_pixels,
            max_message_bytes=config.max_message_bytes,
            default_deadline_ms=round(config.default_deadline_s * 1000),
            max_deadline_ms=round(config.max_deadline_s * 1000),
            group=self._stage.group,
            max_crops=self._max_crops,
            max_document_pages=config.max_document_pages,
            document_dpi=config.document_dpi,
        )
        if facts is not None and identity is not None:
            response.model.CopyFrom(convert.model_message(identity))
            response.classes.extend(facts.classes)
            response.image_sizes.extend(facts.image_sizes)
            response.backend = facts.backend
            response.precision = facts.precision
            response.device = facts.device
            response.crop_spec.CopyFrom(convert.crop_spec_message(facts.crop_longest_px))
            defaults = self._defaults(facts)
            response.default_options.confidence = defaults.confidence
            response.default_options.iou = defaults.iou
            if facts.image_sizes:
                response.default_options.image_size = facts.image_sizes[0]
            response.default_options.scale = str(defaults.scale)
        return response

    async def _look_at_image(
        self, image: bytes | memoryview, asked: _Asked, pool: Pool, response: pb.DetectResponse
    ) -> None:
        payload, group, cost = self._work_of_file(image, asked)
        outcome = await pool.submit(
            payload,
            request_id=asked.request_id,
            deadline=asked.deadline,
            priority=asked.priority,
            group=group,
            cost=cost,
        )
        convert.add_answer(response, outcome, asked.job.crops, asked.facts.classes)

    async def _look_at_crops(
        self,
        crops: Sequence[convert.RawCrop | convert.EncodedCrop],
        asked: _Asked,
        pool: Pool,
        response: pb.DetectResponse,
    ) -> None:
        work = [self._work_of(crop, asked) for crop in crops]
        answers = await answers_of(
            pool,
            [item for item in work if isinstance(item, Work)],
            request_id=asked.request_id,
            deadline=asked.deadline,
            priority=asked.priority,
            max_bytes=self._config.max_crop_bytes,
        )
        coming = iter(answers)
        for crop, item in zip(crops, work, strict=True):
            answer = next(coming) if isinstance(item, Work) else item
            if isinstance(answer, SluicewayError):
                convert.add_failure(response, crop.id, answer)
                continue
            convert.add_answer(response, answer, asked.job.crops, asked.facts.classes, crop.id)
            # Thousands of regions of one crop keep the loop for some milliseconds, and there may be many crops.
            await asyncio.sleep(0)

    def _work_of(self, crop: convert.RawCrop | convert.EncodedCrop, asked: _Asked) -> Work | SluicewayError:
        """What the pool has to do for a crop, or the error of one that is known not to be computable."""
        try:
            if isinstance(crop, convert.EncodedCrop):
                return self._work_of_file(convert.file_of(crop), asked)
            raw = convert.pixels_of(crop, self._limits)
        except SluicewayError as error:
            return error
        group = _batch_group((raw.height_px, raw.width_px), asked.job.image_size_px, asked.facts.inputs)
        return Work(asked.job._replace(raw=raw).payload(crop.data), group, raw.height_px * raw.width_px)

    def _work_of_file(self, data: bytes | memoryview, asked: _Asked) -> Work:
        # Microseconds here spare a bad file the queue, and a worker the look at it.
        header = check_image(data, self._limits)
        group = _batch_group(_upright(header), asked.job.image_size_px, asked.facts.inputs)
        return Work(asked.job.payload(data), group, header.width_px * header.height_px)

    def _defaults(self, facts: DetectionFacts) -> convert.Defaults:
        config = self._config
        return convert.Defaults(
            facts.confidence if config.confidence is None else config.confidence,
            facts.iou if config.iou is None else config.iou,
            config.max_detections,
            facts.classes,
            facts.image_sizes,
            config.scale or facts.scale,
            config.class_agnostic,
            facts.scales,
        )


class _Asked(NamedTuple):
    """What holds for all images of a call."""

    job: DetectionJob
    facts: DetectionFacts
    request_id: str
    deadline: Deadline
    priority: Priority


def add_to_server(servicer: DetectionServicer, server: grpc.aio.Server) -> None:
    """Serve the contract. As the generated function for this does, but images are not copied out of their requests."""
    service = pb.DESCRIPTOR.services_by_name["DetectionService"].full_name
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service,
                {
                    "Detect": grpc.unary_unary_rpc_method_handler(
                        servicer.detect,
                        request_deserializer=convert.read_request,
                        response_serializer=pb.DetectResponse.SerializeToString,
                    ),
                    "DetectPages": grpc.unary_stream_rpc_method_handler(
                        servicer.detect_pages,
                        request_deserializer=convert.read_pages_request,
                        response_serializer=pb.DetectPagesResponse.SerializeToString,
                    ),
                    "Describe": grpc.unary_unary_rpc_method_handler(
                        servicer.Describe,
                        request_deserializer=pb.DescribeRequest.FromString,
                        response_serializer=pb.DescribeResponse.SerializeToString,
                    ),
                },
            ),
        )
    )


def _batch_group(image_shape: tuple[int, int], image_size_px: int | None, inputs: Inputs | None) -> Hashable:
    """What images of one batch have in common: their input, where a model has inputs."""
    return inputs.shape_of(image_shape, image_size_px) if inputs else None


def _upright(header: ImageHeader) -> tuple[int, int]:
    """Height and width of an image, whose file may lie on its side."""
    size = (header.height_px, header.width_px)
    return size[::-1] if header.orientation >= 5 else size
