"""Pipelines through the Open Inference Protocol: each is a model; images in, what was found and read out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from multidict import MultiDict
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference import Inferred, ModelCard, Parameter, Tensor, TensorSpec
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.calls import Caller
from sluiceway_runtime.server.convert import priority_to_proto

from sluiceway.client.regions import Region
from sluiceway.client.results import Result
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.events import SourceFailed
from sluiceway_orchestrator.http.convert import QUERY, names_of, request_from_form
from sluiceway_orchestrator.http.form import Form
from sluiceway_orchestrator.http.results import Results
from sluiceway_orchestrator.jobs import Jobs

__all__ = ["PipelineInference"]

INPUTS = (TensorSpec("image", "BYTES", (-1, 1)),)
# One entry for each image, as long as that of the image with most regions: `num_regions` says how many count.
OUTPUTS = (
    TensorSpec("num_regions", "INT32", (-1, 1)),
    TensorSpec("texts", "BYTES", (-1, -1)),
    TensorSpec("text_confidences", "FP32", (-1, -1)),
    TensorSpec("boxes", "FP32", (-1, -1, 4)),
    TensorSpec("confidences", "FP32", (-1, -1)),
    TensorSpec("class_names", "BYTES", (-1, -1)),
)
# More than these belong into several requests.
MAX_IMAGES = 64
PARAMETERS = tuple(name for name in QUERY if name not in ("job_id", "pipeline", "priority"))
# Pipelines have no versions; clients of the protocol count from 1.
VERSION = "1"


class PipelineInference:
    """Implements `sluiceway_runtime.inference.InferenceStage` over the jobs of the orchestrator."""

    name = "sluiceway-orchestrator"

    def __init__(self, jobs: Jobs, limits: JobLimits, ready: Callable[[], bool]) -> None:
        self._jobs = jobs
        self._limits = limits
        self._ready = ready

    def ready(self) -> bool:
        """Whether it takes work now."""
        return self._ready()

    def cards(self) -> Sequence[ModelCard]:
        """The pipelines, the default first."""
        first = self._limits.default_pipeline
        return tuple(
            self._card(name) for name in sorted(self._limits.pipelines, key=lambda name: (name != first, name))
        )

    def _card(self, name: str) -> ModelCard:
        most = min(MAX_IMAGES, self._limits.max_sources)
        return ModelCard(
            name=name,
            version=VERSION,
            platform="sluiceway_pipeline",
            inputs=INPUTS,
            outputs=OUTPUTS,
            max_elements=most,
            max_batch=most,
            parameters=PARAMETERS,
            properties=(
                ("steps", ",".join(step.name for step in self._limits.pipelines[name].steps)),
                ("image", "files, as a source of the contract has them"),
                ("boxes", "x0 y0 x1 y1 in pixels of the page, origin top left; regions are in reading order"),
            ),
        )

    async def infer(
        self,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
        caller: Caller,
    ) -> Inferred:
        """Run a pipeline on all images as one job; the first image that fails is the error of the request.

        Raises:
            SluicewayError: as `InferenceStage.infer`.
        """
        images = inputs["image"].elements
        if not images:
            raise InvalidOption("image: a pipeline runs on one image or more")
        fields = MultiDict((name, _written(value)) for name, value in parameters.items())
        request = request_from_form(Form(fields, [("", image) for image in images]), MultiDict())
        request.message.pipeline = card.name
        request.message.options.priority = priority_to_proto(priority)
        job = job_from_request(
            request,
            client=caller.client,
            deadline=caller.deadline,
            request_id=caller.request_id,
            limits=self._limits,
        )
        together = Results(names_of(request))
        async with aclosing(self._jobs.run(job)) as events:
            async for addressed in events:
                if isinstance(addressed.event, SourceFailed):
                    raise addressed.event.error
                together.add(addressed)
        results = together.results()
        steps = [result.timings.steps.values() for result in results]
        queue_ms = max(sum(step.queue_ms for step in own) for own in steps)
        return Inferred(_tensors(results), queue_ms, max(sum(step.compute_ms for step in own) for own in steps))


def _written(value: Parameter) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tensors(results: Sequence[Result]) -> Sequence[Tensor]:
    count, longest = len(results), max(len(result.regions) for result in results)
    regions: list[Region | None] = []
    for result in results:
        regions.extend(result.regions)
        regions.extend([None] * (longest - len(result.regions)))
    shape = (count, longest)
    texts = ["" if region is None else region.text or "" for region in regions]
    readings = [0.0 if region is None else region.text_confidence or 0.0 for region in regions]
    confidences = [0.0 if region is None else region.confidence for region in regions]
    names = ["" if region is None else region.class_name for region in regions]
    boxes = [edge for region in regions for edge in ((0.0,) * 4 if region is None else region.box)]
    # What a person would call a region: what was read in it, or else what it is.
    called = [(text or name).encode() for text, name in zip(texts, names, strict=True)]
    return (
        Tensor.integers("num_regions", (count, 1), [len(result.regions) for result in results], (b"regions",)),
        Tensor.texts("texts", shape, texts, readings),
        Tensor.floats("text_confidences", shape, readings, called),
        Tensor.floats("boxes", (*shape, 4), boxes, called),
        Tensor.floats("confidences", shape, confidences, called),
        Tensor.texts("class_names", shape, names, confidences),
    )
