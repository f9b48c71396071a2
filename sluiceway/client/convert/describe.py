"""What a server says of itself."""

from __future__ import annotations

from sluiceway.client.convert.response import from_model
from sluiceway.client.description import (
    Api,
    Description,
    Endpoint,
    ModelInfo,
    Pipeline,
    Stage,
    StageGroup,
    Step,
)
from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["from_describe"]


def from_describe(message: pipeline_pb2.DescribeResponse) -> Description:
    """Read what a server says of itself."""
    return Description(
        server_version=message.server_version,
        stages=tuple(_stage(stage) for stage in message.stages),
        pipelines=tuple(Pipeline(item.name, tuple(_step(step) for step in item.steps)) for item in message.pipelines),
        default_pipeline=message.default_pipeline,
        problems=tuple(message.problems),
        apis=tuple(Api(api.name, tuple(api.params)) for api in message.apis),
        url_sources=message.url_sources,
        max_sources=message.max_sources,
        max_image_bytes=message.max_image_bytes,
        max_message_bytes=message.max_message_bytes,
        default_deadline_s=message.default_deadline_ms / 1000,
        max_deadline_s=message.max_deadline_ms / 1000,
    )


def _stage(message: pipeline_pb2.Stage) -> Stage:
    endpoints = tuple(
        Endpoint(item.address, item.ready, item.load.queued, item.load.running, item.load.capacity, item.group)
        for item in message.endpoints
    )
    groups = tuple(
        StageGroup(
            group.name,
            group.ready,
            tuple(_model_info(message.name, model) for model in group.models),
            group.workers,
            group.server_version,
        )
        for group in message.groups
    )
    return Stage(message.name, message.kind, message.target, endpoints, groups)


def _model_info(stage: str, message: pipeline_pb2.StageModel) -> ModelInfo:
    return ModelInfo(
        stage=stage,
        model=from_model(message.model),
        backend=message.backend,
        precision=message.precision,
        device=message.device,
        classes=tuple(message.classes),
        head=message.head,
        wanted=tuple(message.crop_spec.classes),
        image_sizes=tuple(message.image_sizes),
    )


def _step(message: pipeline_pb2.Step) -> Step:
    return Step(
        name=message.name,
        kind=message.kind,
        stage=message.stage,
        api=message.api,
        of=message.of,
        after=tuple(message.after),
        classes=tuple(message.classes),
        model=message.model,
        on_error=message.on_error,
        params=tuple(message.params),
    )
