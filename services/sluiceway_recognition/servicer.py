"""`sluiceway.recognition.v1.RecognitionService`: convert, ask the pool, convert back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import grpc.aio
from sluiceway_runtime.errors import SluicewayError, Unavailable
from sluiceway_runtime.pool import PoolStatistics
from sluiceway_runtime.server.calls import deadline_of, request_id_of

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway.recognition.v1 import recognition_pb2_grpc
from sluiceway_recognition import convert
from sluiceway_recognition.buckets import bucket_of, fitted_size, padded_px
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.flow import CropResult, PoolLike, QueuedCrop, recognise
from sluiceway_recognition.types import ModelFacts

__all__ = ["RecognitionServicer", "RecognitionStage"]

Context = grpc.aio.ServicerContext[Any, Any]


class StagePool(PoolLike, Protocol):
    """A pool that also says how busy it is."""

    def statistics(self) -> PoolStatistics:
        """See `Pool.statistics`."""
        ...


class RecognitionStage(Protocol):
    """What the servicer needs of the service."""

    @property
    def pool(self) -> StagePool | None:
        """None until started."""

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """By name, the default first; empty until started."""
        ...


class RecognitionServicer(recognition_pb2_grpc.RecognitionServiceServicer):
    """Answers calls; holds nothing between them."""

    def __init__(self, stage: RecognitionStage, config: RecognitionConfig) -> None:
        self._stage = stage
        self._config = config

    async def Recognize(  # noqa: N802 - the contract's name
        self, request: pb.RecognizeRequest, context: Context
    ) -> AsyncIterator[pb.RecognizeResponse]:
        """Recognise crops; see the contract."""
        arrived_s = time.monotonic()
        pool, models = self._stage.pool, self._stage.models
        if pool is None or not models:
            raise Unavailable("the server is starting", retry_after_s=1.0)
        name = convert.check_crops(request, list(models), self._config.max_crops)
        priority = convert.priority_of(request.priority)
        top_k = convert.top_k_of(request.options)
        facts = models[name]
        results = recognise(
            pool,
            [self._queued(crop, facts, top_k) for crop in request.crops],
            request_id=request_id_of(context),
            deadline=deadline_of(context, self._config),
            priority=priority,
            # Half of the queue stays free for others.
            window=max(1, self._config.queue_items // 2),
        )
        model = convert.model_message(facts)
        async with contextlib.aclosing(results):
            async for ready in results:
                yield pb.RecognizeResponse(
                    recognitions=[
                        convert.recognition_message(
                            result.crop_id, result.result, characters=request.options.characters
                        )
                        for result in ready
                    ],
                    model=model,
                    timings=_timings(ready, arrived_s),
                    load=convert.load_message(pool.statistics()),
                )

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:  # noqa: N802, ARG002
        """Say what is served; see the contract. Without models while the server starts."""
        pool, config = self._stage.pool, self._config
        return pb.DescribeResponse(
            server_version=version("sluiceway"),
            models=[convert.model_description(facts) for facts in self._stage.models.values()],
            workers=len(pool.statistics().workers) if pool is not None else 0,
            max_crops=config.max_crops,
            max_message_bytes=config.max_message_bytes,
            default_deadline_ms=round(config.default_deadline_s * 1000),
            max_deadline_ms=round(config.max_deadline_s * 1000),
        )

    def _queued(self, crop: crop_pb2.Crop, facts: ModelFacts, top_k: int) -> QueuedCrop:
        spec, buckets = facts.crop_spec, facts.buckets
        try:
            payload = convert.payload_of(
                crop,
                facts.name,
                top_k,
                max_px=self._config.max_crop_px,
                max_file_bytes=self._config.max_crop_bytes,
            )
        except SluicewayError as error:
            return QueuedCrop(crop.id, error)
        if crop.WhichOneof("content") == "encoded":
            # Its size is known only once a worker has read it: a group of its own, at the greatest cost it can have.
            return QueuedCrop(crop.id, payload, (facts.name, "encoded"), padded_px(spec.max_width, spec, buckets))
        _, width = fitted_size(crop.raw.height, crop.raw.width, spec)
        return QueuedCrop(crop.id, payload, (facts.name, bucket_of(width, buckets)), padded_px(width, spec, buckets))


def _timings(ready: Sequence[CropResult], arrived_s: float) -> model_pb2.StageTimings:
    return model_pb2.StageTimings(
        queue_ms=max(result.queue_ms for result in ready),
        compute_ms=max(result.compute_ms for result in ready),
        total_ms=(time.monotonic() - arrived_s) * 1000,
    )
