"""`sluiceway.recognition.v1.RecognitionService`: convert, ask the pool, convert back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import SluicewayError, Unavailable
from sluiceway_runtime.pool import Payload, PoolLimits, PoolLoad, PoolStatistics, Work
from sluiceway_runtime.recorder import current_call
from sluiceway_runtime.release import release
from sluiceway_runtime.server.calls import deadline_of, request_id_of
from sluiceway_runtime.server.convert import set_load

from sluiceway.common.v1 import model_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front import convert
from sluiceway_recognition.front.flow import CropResult, PoolLike, recognise
from sluiceway_recognition.inputs.buckets import bucket_of, fitted_size, padded_px, turns
from sluiceway_recognition.types import CropTask, ModelFacts, PixelFormat

__all__ = ["RecognitionServicer", "RecognitionStage", "add_to_server"]

Context = grpc.aio.ServicerContext[Any, Any]

# Sizes of one model that are remembered, and ways to ask for it; of more, some are planned anew.
MAX_PLANS, MAX_WISHES = 4096, 64


class StagePool(PoolLike, Protocol):
    """A pool that also says how busy it is."""

    @property
    def limits(self) -> PoolLimits:
        """As it was given."""
        ...

    def statistics(self) -> PoolStatistics:
        """See `Pool.statistics`."""
        ...

    def load(self) -> PoolLoad:
        """See `Pool.load`."""
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

    @property
    def group(self) -> str:
        """Names the version of all models together; empty until started."""
        ...


class RecognitionServicer:
    """Answers calls; holds nothing between them."""

    def __init__(self, stage: RecognitionStage, config: RecognitionConfig) -> None:
        self._stage = stage
        self._config = config
        self._file_limits = config.file_limits
        self._calls = 0  # under way
        # By model and wish; theirs by height, width, format and rotation.
        self._plans: Callable[[str, _Wish], dict[tuple[int, int, int, int], _Plan]] = lru_cache(MAX_WISHES)(_no_plans)

    def recognise(self, request: convert.Request, context: Context) -> AsyncGenerator[bytes, None]:
        """Recognise crops; see the contract's `Recognize`. The responses are serialised."""
        return self.answer(request, request_id_of(context), deadline_of(context, self._config))

    async def recognise_whole(self, request: convert.Request, context: Context) -> bytes:
        """Recognise crops and answer once; see the contract's `RecognizeWhole`. The response is serialised."""
        answers = self.answer(request, request_id_of(context), deadline_of(context, self._config), whole=True)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                return answer
        # It had no crops.
        return b""

    async def answer(
        self, request: convert.Request, request_id: str, deadline: Deadline, *, whole: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The same for a call that came in another way."""
        arrived_s = monotonic()
        pool, models = self._stage.pool, self._stage.models
        if pool is None or not models:
            raise Unavailable("the server is starting", retry_after_s=1.0)
        name = convert.check_crops(request, list(models), self._config.max_crops)
        priority = convert.priority_of(request.priority)
        options = request.options
        facts, wish = models[name], _Wish(convert.top_k_of(options), options.characters, options.words)
        results = recognise(
            pool,
            self._work(request.crops, facts, wish),
            request_id=request_id,
            deadline=deadline,
            priority=priority,
            # Half of the queue stays free for others.
            window=max(1, pool.limits.queue_items // 2),
            calls=lambda: self._calls,
            whole=whole,
        )
        model = convert.model_message(facts)
        self._calls += 1
        try:
            async with contextlib.aclosing(results):
                async for ready in results:
                    recognitions = [convert.recognition_bytes(crop_id, result) for crop_id, result, _, _ in ready]
                    rest = pb.RecognizeResponse(model=model)
                    _set_timings(rest.timings, ready, arrived_s)
                    set_load(rest.load, pool.load())
                    # Concatenated, parts of a message are the message.
                    yield b"".join((*recognitions, rest.SerializeToString()))
        finally:
            self._calls -= 1

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:  # noqa: N802, ARG002
        """Say what is served; see the contract. Without models while the server starts."""
        pool, config = self._stage.pool, self._config
        return pb.DescribeResponse(
            server_version=release(),
            models=[convert.model_description(facts) for facts in self._stage.models.values()],
            workers=len(pool.statistics().workers) if pool is not None else 0,
            max_crops=config.max_crops,
            max_message_bytes=config.max_message_bytes,
            default_deadline_ms=round(config.default_deadline_s * 1000),
            max_deadline_ms=round(config.max_deadline_s * 1000),
            group=self._stage.group,
            whole_crops=pool.limits.max_batch if pool is not None else 0,
        )

    def _work(
        self, crops: Sequence[convert.RawCrop | convert.EncodedCrop], facts: ModelFacts, wish: _Wish
    ) -> list[tuple[int, Work | SluicewayError]]:
        """What the pool has to do for each crop, or the error of one that is known not to be computable."""
        # Crops of one size share everything but their pixels, and sizes repeat from request to request.
        plans = self._plans(facts.name, wish)
        if len(plans) > MAX_PLANS:
            plans.clear()
        work: list[tuple[int, Work | SluicewayError]] = []
        for crop in crops:
            try:
                if isinstance(crop, convert.EncodedCrop):
                    work.append((crop.id, self._encoded(crop, facts, wish)))
                    continue
                size = (crop.height, crop.width, crop.format, crop.rotation_degrees)
                plan = plans.get(size)
                if plan is None or len(crop.data) != plan.size_bytes:
                    plan = plans[size] = self._plan(crop, facts, wish)
                work.append((crop.id, Work(Payload(plan.task, (crop.data,)), plan.group, plan.cost_px)))
            except SluicewayError as error:
                work.append((crop.id, error))
        return work

    def _plan(self, crop: convert.RawCrop, facts: ModelFacts, wish: _Wish) -> _Plan:
        pixel_format = convert.pixel_format_of(crop, self._config.max_crop_px)
        spec, buckets = facts.crop_spec, facts.buckets
        size = (crop.height, crop.width)
        if not crop.rotation_degrees and turns(*size, spec):
            size = (crop.width, crop.height)
        _, width = fitted_size(*size, spec)
        # OpenVINO gains nothing by wide batches, and sorts what comes by bucket itself: crops need not share one.
        bucket = None if facts.backend == "openvino" else bucket_of(width, buckets)
        return _Plan(
            len(crop.data),
            _task(facts.name, crop.height, pixel_format, wish, crop.rotation_degrees),
            (facts.name, bucket),
            padded_px(width, spec, buckets),
        )

    def _encoded(self, crop: convert.EncodedCrop, facts: ModelFacts, wish: _Wish) -> Work:
        data = convert.file_of(crop, self._file_limits)
        payload = Payload(_task(facts.name, 0, None, wish, 0), (data,))
        # Its size is known only once a worker has read it: a group of its own, at the greatest cost it can have. Of a
        # page, reading costs more than computing: a pixel a byte is the least, and keeps pages out of one batch.
        spec = facts.crop_spec
        cost_px = max(padded_px(spec.max_width, spec, facts.buckets), len(data))
        return Work(payload, (facts.name, "encoded"), cost_px)


class _Wish(NamedTuple):
    """What a request wants to know of each crop; see `CropTask`."""

    top_k: int
    characters: bool
    words: bool = False


class _Plan(NamedTuple):
    """What crops of one size have in common."""

    size_bytes: int
    task: CropTask
    group: Hashable
    cost_px: int


def _no_plans(_model: str, _wish: _Wish) -> dict[tuple[int, int, int, int], _Plan]:
    return {}


@lru_cache(maxsize=4096)
def _task(model: str, height: int, pixel_format: PixelFormat | None, wish: _Wish, rotation_degrees: int) -> CropTask:
    """Equal tasks are one object, as a batch in which they repeat is pickled faster then."""
    return CropTask(model, height, pixel_format, wish.top_k, wish.characters, rotation_degrees, wish.words)


def add_to_server(servicer: RecognitionServicer, server: grpc.aio.Server) -> None:
    """Serve the contract. As the generated function for this does, but requests are read in place."""
    service = pb.DESCRIPTOR.services_by_name["RecognitionService"].full_name
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service,
                {
                    "Recognize": grpc.unary_stream_rpc_method_handler(
                        servicer.recognise, request_deserializer=convert.read_request, response_serializer=None
                    ),
                    "RecognizeWhole": grpc.unary_unary_rpc_method_handler(
                        servicer.recognise_whole, request_deserializer=convert.read_request, response_serializer=None
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


def _set_timings(timings: model_pb2.StageTimings, ready: Sequence[CropResult], arrived_s: float) -> None:
    timings.queue_ms = max([result.queue_ms for result in ready])
    timings.compute_ms = max([result.compute_ms for result in ready])
    timings.total_ms = (monotonic() - arrived_s) * 1000
    timings.call = current_call.get()
