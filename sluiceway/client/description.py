"""What a server says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from sluiceway.client.results import Model
from sluiceway.errors import UnknownPipeline

__all__ = ["Api", "Description", "Endpoint", "ModelInfo", "Pipeline", "Stage", "StageGroup", "Step"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that is served.

    Attributes:
        stage: name of its stage.
        model: its identity.
        backend: what computes: "openvino", "onnx", "torch" or "user".
        precision: "f32", "bf16", "f16" or "int8".
        device: "cpu", "cuda:0".
        classes: what it tells apart.
        head: what it answers with: "regions", "text", "classes" or "embedding".
        wanted: classes of the regions that it wants; empty for all.
        image_sizes: of detectors: longer sides that `Options.image_size` may ask for, the default first.
    """

    stage: str
    model: Model
    backend: str
    precision: str
    device: str
    classes: tuple[str, ...]
    head: str = ""
    wanted: tuple[str, ...] = ()
    image_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a stage, its load when it last answered, and the version that it serves."""

    address: str
    ready: bool
    queued: int
    running: int
    capacity: int
    group: str = ""


@dataclass(frozen=True, slots=True)
class StageGroup:
    """The replicas of a stage that serve the same: `ready` of them take work, with `workers` processes in each."""

    name: str
    ready: int
    models: tuple[ModelInfo, ...]
    workers: int
    server_version: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its kind ("detection" or "recognition"), where it is configured to be, and its replicas.

    `groups` are the versions that are served, the one with the most replicas first; none while none was ever reached.
    """

    name: str
    kind: str
    target: str
    endpoints: tuple[Endpoint, ...]
    groups: tuple[StageGroup, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether a replica takes work."""
        return any(endpoint.ready for endpoint in self.endpoints)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the first version serves; the first model is the default."""
        return self.groups[0].models if self.groups else ()

    @property
    def workers(self) -> int:
        """Worker processes of one replica of the first version."""
        return self.groups[0].workers if self.groups else 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pipeline; an empty field means that the contract's default holds.

    Attributes:
        name: its name.
        kind: "detect", "recognize" or "call".
        stage: the stage that does it.
        api: the API that is called.
        of: the step whose regions it works on; empty for the page, or the source.
        after: steps that must have ended before.
        classes: of regions that it works on, or keeps.
        model: name of the model.
        on_error: "fail" or "skip".
        params: that `Source.params` must give.
    """

    name: str
    kind: str
    stage: str = ""
    api: str = ""
    of: str = ""
    after: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    model: str = ""
    on_error: str = ""
    params: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What sources can be run through: steps, in an order in which none comes before what feeds it."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Api:
    """An API that sources may call."""

    name: str
    params: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """Pipelines, stages, APIs and limits.

    Attributes:
        server_version: of the orchestrator.
        stages: with their replicas and models.
        pipelines: what sources can be run through.
        default_pipeline: the one of jobs that name none.
        problems: what is wrong with pipelines and is known only from running stages, in words.
        apis: that sources may call.
        url_sources: whether sources may be URLs.
        max_sources: in one job.
        max_image_bytes: of one image file.
        max_message_bytes: of one gRPC message.
        default_deadline_s: for calls that set none.
        max_deadline_s: longer ones are cut to this.
    """

    server_version: str
    stages: tuple[Stage, ...]
    pipelines: tuple[Pipeline, ...]
    default_pipeline: str
    problems: tuple[str, ...]
    apis: tuple[Api, ...]
    url_sources: bool
    max_sources: int
    max_image_bytes: int
    max_message_bytes: int
    default_deadline_s: float
    max_deadline_s: float

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Those of all stages that could be asked."""
        return tuple(model for stage in self.stages for model in stage.models)

    def pipeline(self, name: str | None = None) -> Pipeline:
        """Return a pipeline by name, or the default one.

        Raises:
            UnknownPipeline: there is none of this name.
        """
        wanted = name or self.default_pipeline
        for pipeline in self.pipelines:
            if pipeline.name == wanted:
                return pipeline
        raise UnknownPipeline(
            f"there is no pipeline {wanted!r}, only {', '.join(item.name for item in self.pipelines)}"
        )

    def stages_of(self, pipeline: str | None = None) -> tuple[str, ...]:
        """Return the names of the stages that a pipeline needs, in the order of its steps.

        Raises:
            UnknownPipeline: there is none of this name.
        """
        return tuple(dict.fromkeys(step.stage for step in self.pipeline(pipeline).steps if step.stage))

    def missing(self, pipeline: str | None = None) -> tuple[str, ...]:
        """Return the names of the stages that a pipeline needs and that have no replica that takes work.

        Raises:
            UnknownPipeline: there is none of this name.
        """
        ready = {stage.name for stage in self.stages if stage.ready}
        return tuple(name for name in self.stages_of(pipeline) if name not in ready)
