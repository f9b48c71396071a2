"""What stages are asked for, made from what they say of themselves: crop specs, models, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.recognition.v1 import recognition_pb2
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind
from sluiceway_orchestrator.stages.detection import DetectionDescription
from sluiceway_orchestrator.stages.recognition import RecognitionDescription

__all__ = ["crop_fields", "detection_options", "head_fields", "misfits", "model_for", "serves"]

# For a detector that says nothing of the crops that it wants.
_LONGEST_PX = 1280


def model_for(step: Step, recognition: RecognitionDescription) -> recognition_pb2.ModelDescription | None:
    """The model that does a step; None if the stage has none of that name."""
    if not step.model:
        return recognition.models[0] if recognition.models else None
    return next((entry for entry in recognition.models if entry.model.name == step.model), None)


def serves(pipeline: Pipeline, stage: str, description: object) -> bool:
    """Whether a version of a stage has the models that the steps name."""
    if not isinstance(description, recognition_pb2.DescribeResponse):
        return True
    return all(
        model_for(step, description) is not None
        for step in pipeline.steps
        if step.kind is StepKind.RECOGNIZE and step.stage == stage
    )


def crop_fields(pipeline: Pipeline, step: Step, descriptions: Mapping[str, object]) -> bytes:
    """The fields `crop_specs` of a `DetectRequest`, serialised: one spec for each step that works on the regions.

    A step that names classes gets those; one that does not gets those that its model is made for.
    """
    request = detection_pb2.DetectRequest()
    detection = descriptions[step.stage]
    assert isinstance(detection, DetectionDescription)
    for child in pipeline.children[step.index]:
        if child.kind is StepKind.CALL:
            continue
        spec = _spec_of(child, descriptions[child.stage])
        if spec is None:
            continue
        made_for = frozenset() if child.classes else frozenset(spec.classes)
        wanted = [name for name in detection.classes if child.wants(name) and (not made_for or name in made_for)]
        if detection.classes and not wanted:
            continue
        spec.name = child.name
        if detection.classes:
            spec.classes[:] = () if len(wanted) == len(detection.classes) else wanted
        elif child.classes:
            # It does not say what it finds.
            spec.classes[:] = child.classes
        request.crop_specs.append(spec)
    return request.SerializeToString()


def _spec_of(step: Step, description: object) -> crop_pb2.CropSpec | None:
    spec = crop_pb2.CropSpec()
    if isinstance(description, DetectionDescription):
        if description.HasField("crop_spec"):
            spec.CopyFrom(description.crop_spec)
        else:
            spec.max_width, spec.resize_rule = _LONGEST_PX, crop_pb2.RESIZE_RULE_FIT_LONGEST
        return spec
    assert isinstance(description, RecognitionDescription)
    model = model_for(step, description)
    if model is None:
        return None
    spec.CopyFrom(model.crop_spec)
    return spec


def head_fields(model: str) -> bytes:
    """The fields of a `RecognizeRequest` that name its model.

    Serialised messages that follow each other are merged by whoever parses them, the submessage `options` included.
    """
    options = recognition_pb2.RecognizeOptions(model=model)
    return recognition_pb2.RecognizeRequest(options=options).SerializeToString()


def detection_options(fields: bytes, chosen: Mapping[str, Any], own: frozenset[str]) -> bytes:
    """Fields of a `DetectRequest` with options that an API chose: over those of the step, under the job's own."""
    request = detection_pb2.DetectRequest.FromString(fields)
    others = {name: value for name, value in chosen.items() if name not in own}
    if "classes" in others:
        request.options.ClearField("classes")
    request.options.MergeFrom(detection_pb2.DetectOptions(**others))
    return request.SerializeToString()


def misfits(pipeline: Pipeline, descriptions: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with a pipeline and only running stages can tell, in words.

    Args:
        pipeline: to be judged.
        descriptions: by stage; of those that have been reached.
    """
    for step in pipeline.steps:
        where = f"pipelines.{pipeline.name}.steps.{step.name}"
        description = descriptions.get(step.stage)
        if isinstance(description, RecognitionDescription) and model_for(step, description) is None:
            known = ", ".join(entry.model.name for entry in description.models)
            yield f"{where}.model: {step.stage} serves no {step.model!r}; it has {known or 'no model'}"
        if step.kind is StepKind.DETECT and isinstance(description, DetectionDescription):
            yield from _unknown(f"{where}.classes", step.options.get("classes", ()), step.stage, description)
        feeder = pipeline.steps[step.of] if step.of is not None else None
        while feeder is not None and feeder.kind is StepKind.RECOGNIZE:
            feeder = pipeline.steps[feeder.of] if feeder.of is not None else None
        if feeder is not None:
            finder = descriptions.get(feeder.stage)
            if isinstance(finder, DetectionDescription):
                yield from _unknown(f"{where}.classes", step.classes, feeder.stage, finder)


def _unknown(key: str, names: object, stage: str, description: DetectionDescription) -> Iterator[str]:
    assert isinstance(names, (tuple, list))
    for name in names:
        if description.classes and name not in description.classes:
            yield f"{key}: {stage} finds no {name!r}; it finds {', '.join(description.classes[:20])}"
