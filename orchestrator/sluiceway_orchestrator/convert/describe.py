"""What the orchestrator says of itself: its pipelines, its stages as they are now, and its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.plan import Pipeline, Step
from sluiceway_orchestrator.stages.detection import DetectionDescription
from sluiceway_orchestrator.stages.group import Group
from sluiceway_orchestrator.stages.recognition import RecognitionDescription
from sluiceway_orchestrator.stages.replica import Replica
from sluiceway_orchestrator.stages.stage import Stage

__all__ = ["description"]

_HEADS: Mapping[int, str] = {
    recognition_pb2.HEAD_TEXT: "text",
    recognition_pb2.HEAD_CLASSIFY: "classes",
    recognition_pb2.HEAD_EMBED: "embedding",
}


def description(
    config: OrchestratorConfig,
    *,
    version: str,
    stages: Iterable[Stage[Any]],
    pipelines: Mapping[str, Pipeline],
    apis: Mapping[str, Sequence[str]],
    problems: Sequence[str],
) -> pipeline_pb2.DescribeResponse:
    """All of it."""
    return pipeline_pb2.DescribeResponse(
        server_version=version,
        stages=[_stage(stage) for stage in stages],
        pipelines=[_pipeline(pipeline) for pipeline in pipelines.values()],
        default_pipeline=config.default_pipeline,
        problems=problems,
        apis=[pipeline_pb2.Api(name=name, params=params) for name, params in sorted(apis.items())],
        url_sources=config.url_sources,
        max_sources=config.max_sources,
        max_image_bytes=config.max_image_bytes,
        max_message_bytes=config.max_message_bytes,
        default_deadline_ms=round(config.default_deadline_s * 1000),
        max_deadline_ms=round(config.max_deadline_s * 1000),
    )


def _pipeline(pipeline: Pipeline) -> pipeline_pb2.Pipeline:
    return pipeline_pb2.Pipeline(name=pipeline.name, steps=[_step(pipeline, step) for step in pipeline.steps])


def _step(pipeline: Pipeline, step: Step) -> pipeline_pb2.Step:
    on_page = step.options.get("classes", ()) if step.of is None else ()
    return pipeline_pb2.Step(
        name=step.name,
        kind=step.kind.value,
        stage=step.stage,
        api=step.api,
        of=pipeline.steps[step.of].name if step.of is not None else "",
        after=[pipeline.steps[index].name for index in step.after],
        classes=step.classes or on_page,
        except_classes=step.except_classes,
        model=step.model,
        on_error=step.on_error,
        params=step.source_params,
    )


def _stage(stage: Stage[Any]) -> pipeline_pb2.Stage:
    by_replica = {id(member): group.name for group, members in stage.members for member in members}
    return pipeline_pb2.Stage(
        name=stage.name,
        kind=stage.kind,
        target=stage.target.text,
        endpoints=[_endpoint(replica, by_replica.get(id(replica), "")) for replica in stage.replicas],
        groups=[_group(group, len(members)) for group, members in stage.members],
    )


def _endpoint(replica: Replica[Any], group: str) -> pipeline_pb2.Endpoint:
    report = replica.occupancy.report
    load = model_pb2.Load(
        queued=report.queued, running=report.running, capacity=report.capacity, queue_ms=report.queue_ms
    )
    return pipeline_pb2.Endpoint(address=replica.address, ready=replica.ready, load=load, group=group)


def _group(group: Group[Any], ready: int) -> pipeline_pb2.StageGroup:
    message = pipeline_pb2.StageGroup(
        name=group.name,
        ready=ready,
        workers=group.description.workers,
        server_version=group.description.server_version,
    )
    if isinstance(group.description, DetectionDescription):
        message.models.append(_detector(group.description))
    elif isinstance(group.description, RecognitionDescription):
        message.models.extend(_reader(entry) for entry in group.description.models)
    return message


def _detector(found: DetectionDescription) -> pipeline_pb2.StageModel:
    message = pipeline_pb2.StageModel(
        model=found.model,
        head="regions",
        classes=found.classes,
        backend=found.backend,
        precision=found.precision,
        device=found.device,
        image_sizes=found.image_sizes,
    )
    if found.HasField("crop_spec"):
        message.crop_spec.CopyFrom(found.crop_spec)
    # The fields are the same, by number and by meaning.
    message.default_options.MergeFromString(found.default_options.SerializeToString())
    return message


def _reader(found: recognition_pb2.ModelDescription) -> pipeline_pb2.StageModel:
    return pipeline_pb2.StageModel(
        model=found.model,
        head=_HEADS.get(found.head, ""),
        classes=found.labels,
        backend=found.backend,
        precision=found.precision,
        device=found.device,
        crop_spec=found.crop_spec,
    )
