"""`sluiceway.detection.v1.DetectionService`: convert, ask the pool, convert back."""

from __future__ import annotations

import time
from collections.abc import Hashable
from importlib.metadata import version
from typing import Any, Protocol

import grpc.aio
from sluiceway_runtime.errors import Unavailable
from sluiceway_runtime.images.header import ImageHeader
from sluiceway_runtime.images.limits import ImageLimits, check_image
from sluiceway_runtime.pool import Pool
from sluiceway_runtime.server.calls import deadline_of, request_id_of
from sluiceway_runtime.server.convert import set_load

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc
from sluiceway_detection import convert
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.detector import shape_for
from sluiceway_detection.handler import DetectionFacts
from sluiceway_detection.input_shapes import InputShape

__all__ = ["DetectionServicer", "DetectionStage"]

Context = grpc.aio.ServicerContext[Any, Any]


class DetectionStage(Protocol):
    """What the servicer needs of the service."""

    @property
    def pool(self) -> Pool | None:
        """None until started."""

    @property
    def facts(self) -> DetectionFacts | None:
        """None until started."""

    @property
    def identity(self) -> convert.Identity | None:
        """None until started."""


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """Answers calls; holds nothing between them."""

    def __init__(self, stage: DetectionStage, config: DetectionConfig) -> None:
        self._stage = stage
        self._config = config
        self._limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:  # noqa: N802 - the contract's
        """Detect the regions of one image; see the contract."""
        arrived_s = time.monotonic()
        pool, facts, identity = self._stage.pool, self._stage.facts, self._stage.identity
        if pool is None or facts is None or identity is None:
            raise Unavailable("the server is starting", retry_after_s=1.0)
        job = convert.job_of(request, self._defaults(facts))
        priority = convert.priority_of(request.priority)
        # Microseconds here spare a bad file the queue, and a worker the look at it.
        header = check_image(request.image, self._limits)
        group = _group(header, job.image_size_px, facts.shapes)
        outcome = await pool.submit(
            job.payload(request.image),
            request_id=request_id_of(context),
            deadline=deadline_of(context, self._config),
            priority=priority,
            group=group,
            cost=header.width_px * header.height_px,
        )
        response = convert.response_of(
            outcome, job, facts.classes, convert.model_message(identity), (time.monotonic() - arrived_s) * 1000
        )
        set_load(response.load, pool.load())
        return response

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:  # noqa: N802, ARG002
        """Say what is served; see the contract. Without the model while the server starts."""
        config, pool, facts, identity = self._config, self._stage.pool, self._stage.facts, self._stage.identity
        response = pb.DescribeResponse(
            server_version=version("sluiceway"),
            default_options=pb.DetectOptions(
                confidence=config.confidence, iou=config.iou, max_detections=config.max_detections
            ),
            workers=len(pool.statistics().workers) if pool is not None else 0,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=config.max_image_pixels,
            max_message_bytes=config.max_message_bytes,
            default_deadline_ms=round(config.default_deadline_s * 1000),
            max_deadline_ms=round(config.max_deadline_s * 1000),
        )
        if facts is not None and identity is not None:
            response.model.CopyFrom(convert.model_message(identity))
            response.classes.extend(facts.classes)
            response.image_sizes.extend(facts.image_sizes)
            response.backend = facts.backend
            response.precision = facts.precision
            response.device = facts.device
            defaults = self._defaults(facts)
            response.default_options.confidence = defaults.confidence
            response.default_options.iou = defaults.iou
            if facts.image_sizes:
                response.default_options.image_size = facts.image_sizes[0]
        return response

    def _defaults(self, facts: DetectionFacts) -> convert.Defaults:
        config = self._config
        return convert.Defaults(
            facts.confidence if config.confidence is None else config.confidence,
            facts.iou if config.iou is None else config.iou,
            config.max_detections,
            facts.classes,
            facts.image_sizes,
        )


def _group(header: ImageHeader, image_size_px: int | None, shapes: tuple[InputShape, ...]) -> Hashable:
    """What images of one batch have in common: their input, where the model has fixed ones."""
    if not shapes:
        return None
    height, width = header.height_px, header.width_px
    if header.orientation >= 5:  # lies on its side
        height, width = width, height
    return shape_for((height, width), image_size_px, shapes)
