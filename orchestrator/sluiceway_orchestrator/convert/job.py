"""From a request to a job: everything that the contract itself says of one is checked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache

from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.documents.kind import is_document
from sluiceway_runtime.errors import InvalidOption, UnknownPipeline
from sluiceway_runtime.images.scale import scale_of
from sluiceway_runtime.priority import Priority

from sluiceway.common.v1 import model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.job import ApiCall, Job, Source
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind

__all__ = ["JobLimits", "job_from_request"]

_MAX_JOB_ID = 128
_MAX_SOURCE_ID = 256
# A call may take two bytes of a message, and has an object and a task of its own here.
_MAX_CALLS = 64
_MAX_PARAMS = 256
_PRIORITIES = {
    model_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    model_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    model_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    model_pb2.PRIORITY_BULK: Priority.BULK,
}
_OPTIONS_OF = {StepKind.DETECT: "detection", StepKind.RECOGNIZE: "recognition"}
_PRIORITY_MESSAGES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}


class JobLimits:
    """What jobs of this server may be.

    Args:
        pipelines: by name.
        default_pipeline: of jobs that name none.
        max_sources: in one job.
        interactive: names of the clients that may ask to be served as INTERACTIVE; `*` is everybody.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        default_pipeline: str,
        *,
        max_sources: int,
        interactive: Sequence[str] = ("*",),
    ) -> None:
        self.pipelines = pipelines
        self.default_pipeline = default_pipeline
        self.max_sources = max_sources
        self._interactive = frozenset(interactive)

    def class_of(self, client: Hashable, asked: Priority) -> Priority:
        """The class in which a client is served."""
        if asked is Priority.INTERACTIVE and not ({"*", client} & self._interactive):
            return Priority.NORMAL
        return asked


def job_from_request(
    request: Request,
    *,
    client: Hashable,
    deadline: Deadline,
    request_id: str,
    limits: JobLimits,
    longest: Deadline | None = None,
) -> Job:
    """Check a job and take it apart.

    Args:
        request: as it came.
        client: whose it is.
        deadline: of its call.
        request_id: of its call.
        limits: of jobs.
        longest: deadline of a job with documents whose client set none; None where the call has one.

    Raises:
        InvalidOption, UnknownPipeline: the job as a whole cannot run.
    """
    message = request.message
    if len(message.job_id) > _MAX_JOB_ID:
        raise InvalidOption(f"job_id: at most {_MAX_JOB_ID} characters")
    if not message.sources:
        raise InvalidOption("sources: a job needs at least one")
    if len(message.sources) > limits.max_sources:
        raise InvalidOption(
            f"sources: {len(message.sources)} are more than the limit",
            metadata={"max_sources": str(limits.max_sources)},
        )
    pipeline = limits.pipelines.get(message.pipeline or limits.default_pipeline)
    if pipeline is None:
        raise UnknownPipeline(
            "no pipeline of this name is configured",
            metadata={"pipeline": message.pipeline[:64], "pipelines": ", ".join(limits.pipelines)},
        )
    sources = tuple(_source(index, source, request.images) for index, source in enumerate(message.sources))
    repeated = [name for name, count in Counter(source.source_id for source in sources).items() if count > 1]
    if repeated:
        raise InvalidOption("source_id: must be unique within the job", metadata={"source_id": repeated[0]})
    deadline = min(deadline, _deadline(message, deadline))
    if longest is not None and not message.HasField("timeout") and any(map(_is_document, sources)):
        deadline = longest
    options = message.options
    asked = _PRIORITIES.get(options.priority)
    if asked is None:
        raise InvalidOption(f"options.priority: {options.priority} is unknown")
    if options.text_layer not in model_pb2.TextLayer.values():
        raise InvalidOption(f"options.text_layer: {options.text_layer} is unknown")
    priority = limits.class_of(client, asked)
    detect, recognize = _options(pipeline, options, priority)
    own = {step.name: _own(_layers(step, options)) for step in pipeline.steps if step.kind is StepKind.DETECT}
    return Job(
        job_id=message.job_id or request_id,
        pipeline=pipeline.name,
        sources=sources,
        client=client,
        priority=priority,
        deadline=deadline,
        request_id=request_id,
        accepted_s=monotonic(),
        detect_options=detect,
        own_options=own,
        recognize_options=recognize,
        return_images=options.return_images,
        detect_only=options.detect_only,
        prefers_text=options.text_layer == model_pb2.TEXT_LAYER_PREFER,
    )


def _deadline(message: pipeline_pb2.ProcessRequest, otherwise: Deadline) -> Deadline:
    if not message.HasField("timeout"):
        return otherwise
    seconds = message.timeout.seconds + message.timeout.nanos / 1e9
    if seconds <= 0:
        raise InvalidOption("timeout: must be above 0")
    return Deadline.after(seconds)


def _is_document(source: Source) -> bool:
    return source.image is not None and is_document(source.image)


def _source(index: int, source: pipeline_pb2.Source, images: Mapping[int, memoryview]) -> Source:
    source_id = source.source_id or str(index)
    if len(source_id) > _MAX_SOURCE_ID:
        raise InvalidOption(f"source_id: at most {_MAX_SOURCE_ID} characters")
    if len(source.calls) > _MAX_CALLS:
        raise InvalidOption(f"calls: at most {_MAX_CALLS} for a source")
    if len(source.params) > _MAX_PARAMS:
        raise InvalidOption(f"params: at most {_MAX_PARAMS} for a source")
    kind = source.WhichOneof("content")
    image: bytes | memoryview | None = None
    if kind == "image":
        image = images.get(index) or source.image
    content = (source.api_call,) if kind == "api_call" else ()
    calls = _named((*content, *source.calls))
    return Source(
        source_id,
        image=image,
        url=source.url if kind == "url" else None,
        api_call=calls[0] if content else None,
        calls=calls[len(content) :],
        params=dict(source.params),
    )


def _named(calls: Iterable[pipeline_pb2.ApiCall]) -> tuple[ApiCall, ...]:
    """Calls with the names of their answers: their own, or that of the API, with a number from the second on."""
    named: list[ApiCall] = []
    taken = {call.name for call in calls if call.name}
    if len(taken) < sum(bool(call.name) for call in calls):
        raise InvalidOption("calls.name: must be unique within the source")
    for call in calls:
        name, number = call.name or call.api, 1
        while not call.name and name in taken:
            number += 1
            name = f"{call.api}_{number}"
        taken.add(name)
        named.append(ApiCall(call.api, dict(call.params), name))
    return tuple(named)


def _options(
    pipeline: Pipeline, options: pipeline_pb2.ProcessOptions, priority: Priority
) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
    """The fields of requests to stages, by step: the steps' own options under those of the job."""
    if not (options.HasField("detection") or options.HasField("recognition") or options.steps):
        return _plain_options(pipeline, priority)
    for name, chosen in options.steps.items():
        named = pipeline.step(name)
        if named is None:
            raise InvalidOption(f"options.steps: the pipeline {pipeline.name} has no step {name[:64]!r}")
        given = {field.name for field, _ in chosen.ListFields()}
        wrong = given - {_OPTIONS_OF.get(named.kind, "")}
        if wrong:
            raise InvalidOption(f"options.steps.{name}.{min(wrong)}: this step does {named.kind.value!r}")
    detect, recognize = {}, {}
    for step in pipeline.steps:
        own = options.steps[step.name] if step.name in options.steps else pipeline_pb2.StepOptions()
        if step.kind is StepKind.DETECT:
            detect[step.name] = _detect_fields(step, _layers(step, options), priority)
        elif step.kind is StepKind.RECOGNIZE:
            recognize[step.name] = _recognize_fields(step, [options.recognition, own.recognition], priority)
    return detect, recognize


def _layers(step: Step, options: pipeline_pb2.ProcessOptions) -> list[pipeline_pb2.DetectionOptions]:
    """What a job says of a detection step, the last word last."""
    layers = [options.detection] if step.of is None else []
    return [*layers, options.steps[step.name].detection] if step.name in options.steps else layers


def _own(layers: Sequence[pipeline_pb2.DetectionOptions]) -> frozenset[str]:
    return frozenset(field.name for layer in layers for field, _ in layer.ListFields())


@lru_cache(maxsize=1024)
def _plain_options(pipeline: Pipeline, priority: Priority) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
    detect = {s.name: _detect_fields(s, (), priority) for s in pipeline.steps if s.kind is StepKind.DETECT}
    recognize = {s.name: _recognize_fields(s, (), priority) for s in pipeline.steps if s.kind is StepKind.RECOGNIZE}
    return detect, recognize


def _detect_fields(step: Step, layers: Sequence[pipeline_pb2.DetectionOptions], priority: Priority) -> bytes:
    options = detection_pb2.DetectOptions(**step.options)
    for layer in layers:
        _check_detection(layer)
        if layer.classes:
            options.ClearField("classes")
        # The fields are the same, by number and by meaning.
        options.MergeFromString(layer.SerializeToString())
    return detection_pb2.DetectRequest(options=options, priority=_PRIORITY_MESSAGES[priority]).SerializeToString()


def _recognize_fields(step: Step, layers: Sequence[pipeline_pb2.RecognitionOptions], priority: Priority) -> bytes:
    options = recognition_pb2.RecognizeOptions(**step.options)
    for layer in layers:
        if layer.HasField("top_k"):
            if not 1 <= layer.top_k <= 1000:
                raise InvalidOption("options.recognition.top_k: must be 1..1000")
            options.top_k = layer.top_k
        if layer.HasField("characters"):
            options.characters = layer.characters
        if layer.HasField("words"):
            options.words = layer.words
    request = recognition_pb2.RecognizeRequest(options=options, priority=_PRIORITY_MESSAGES[priority])
    return request.SerializeToString()


def _check_detection(detect: pipeline_pb2.DetectionOptions) -> None:
    """What the contract itself says of options; what depends on the model is the stage's to judge."""
    for name in ("confidence", "iou"):
        if detect.HasField(name) and not 0 < getattr(detect, name) <= 1:
            raise InvalidOption(f"options.detection.{name}: must be above 0 and at most 1")
    if detect.HasField("max_detections") and not 1 <= detect.max_detections <= 10_000:
        raise InvalidOption("options.detection.max_detections: must be 1..10000")
    if detect.HasField("image_size") and (detect.image_size <= 0 or detect.image_size % 32):
        raise InvalidOption("options.detection.image_size: must be a multiple of 32")
    if detect.HasField("scale"):
        try:
            scale_of(detect.scale)
        except ValueError as error:
            raise InvalidOption(f"options.detection.scale: {error}") from None
