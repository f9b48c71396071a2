"""What stages are asked for: which model reads which class, made from what the stages say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sluiceway_orchestrator.convert.specs import crop_fields, misfits
from sluiceway_orchestrator.pipelines.binding import Binder
from sluiceway_orchestrator.pipelines.load import load_pipelines
from sluiceway_orchestrator.plan import Pipeline
from sluiceway_orchestrator.stages.group import Group
from sluiceway_orchestrator.stages.stage import Stage
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import UnknownModel

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.recognition.v1 import recognition_pb2

TEXT = {"text": ()}
LOGO = {"text": (), "logo": ("brand",)}
WORDS = {"name": "words"}

# Name to the steps that read, the detector's classes, the recogniser's models with the classes that they are made for,
# and by step the classes that are cut for it; none of them are all of them.
TABLE: dict[str, tuple[list[dict[str, Any]], list[str], Mapping[str, Sequence[str]], dict[str, list[str]]]] = {
    "a step for everything": ([WORDS], ["a", "b"], TEXT, {"words": []}),
    "no step that reads": ([], ["a"], TEXT, {}),
    "all but one class": ([WORDS | {"except_classes": ["image"]}], ["line", "image"], TEXT, {"words": ["line"]}),
    "all but a class that the detector lacks": (
        [WORDS | {"except_classes": ["image"]}], ["person"], TEXT, {"words": []},
    ),
    "all but the only class": ([WORDS | {"except_classes": ["a"]}], ["a"], TEXT, {}),
    "one class": ([WORDS | {"classes": ["a"]}], ["a", "b"], TEXT, {"words": ["a"]}),
    "a class to a model by name": (
        [WORDS | {"except_classes": ["b"]}, {"name": "logos", "model": "logo", "classes": ["b"]}], ["a", "b"], LOGO,
        {"words": ["a"], "logos": ["b"]},
    ),
    "a class to two models": (
        [WORDS | {"classes": ["b"]}, {"name": "logos", "model": "logo", "classes": ["b"]}], ["a", "b"], LOGO,
        {"words": ["b"], "logos": ["b"]},
    ),
    "one class of a detector that does not say what it finds": (
        [WORDS | {"classes": ["a"]}, {"name": "logos", "model": "logo"}], [], LOGO,
        {"words": ["a"], "logos": ["brand"]},
    ),
    "what a model is made for limits a step that names no classes": (
        [WORDS | {"model": "logo"}], ["brand", "line"], LOGO, {"words": ["brand"]},
    ),
    "the operator's word goes over what a model is made for": (
        [WORDS | {"model": "logo", "classes": ["line"]}], ["brand", "line"], LOGO, {"words": ["line"]},
    ),
}  # fmt: skip


def pipeline_of(readers: list[dict[str, Any]]) -> Pipeline:
    steps = [{"name": "text", "stage": "detection"}]
    steps += [{"stage": "recognition", "of": "text"} | reader for reader in readers]
    stages = {"detection": "detection", "recognition": "recognition"}
    return load_pipelines({"pipelines": {"read": {"steps": steps}}}, stages, {})["read"]


def descriptions_of(classes: list[str], models: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    entries = [
        recognition_pb2.ModelDescription(
            model=model_pb2.Model(name=name), crop_spec=crop_pb2.CropSpec(name=name, height=48, classes=made_for)
        )
        for name, made_for in models.items()
    ]
    return {
        "detection": detection_pb2.DescribeResponse(classes=classes),
        "recognition": recognition_pb2.DescribeResponse(models=entries),
    }


@pytest.mark.parametrize("name", TABLE)
def test_crops_are_asked_for_by_step(name: str) -> None:
    readers, classes, models, expected = TABLE[name]
    pipeline = pipeline_of(readers)
    fields = crop_fields(pipeline, pipeline.steps[0], descriptions_of(classes, models))
    specs = detection_pb2.DetectRequest.FromString(fields).crop_specs
    assert {spec.name: list(spec.classes) for spec in specs} == expected
    assert all(spec.height == 48 for spec in specs)


async def test_a_model_that_is_not_served_is_named() -> None:
    pipeline = pipeline_of([WORDS | {"model": "missing"}])
    descriptions = descriptions_of(["a"], TEXT)

    class Bound(Stage[Any]):
        def __init__(self, name: str) -> None:
            self.name = name

        def bind_now(self, able: object = None) -> Group[Any]:
            del able
            return Group("v", "v", descriptions[self.name])

    with pytest.raises(UnknownModel, match="missing"):
        await Binder({name: Bound(name) for name in descriptions}).bind(pipeline, Deadline.after(1))
    (problem,) = misfits(pipeline, descriptions)
    assert "pipelines.read.steps.words.model" in problem
    assert "missing" in problem


async def test_what_was_chosen_before_a_wait_is_chosen_again_after_it() -> None:
    """While one stage is waited for, the version that was chosen of another may go away."""
    pipeline = pipeline_of([WORDS])
    descriptions = descriptions_of(["a"], TEXT)
    groups: dict[str, Group[Any] | None] = {"detection": Group("old", "", descriptions["detection"])}
    new = Group("new", "", descriptions["detection"])

    class Comes(Stage[Any]):
        def __init__(self, name: str) -> None:
            self.name = name

        def bind_now(self, able: object = None) -> Group[Any] | None:
            del able
            return groups.get(self.name)

        async def wait_there(self, deadline: Deadline) -> None:
            if self.name == "recognition":
                groups.update(recognition=Group("v", "", descriptions["recognition"]), detection=new)

    binding = await Binder({name: Comes(name) for name in descriptions}).bind(pipeline, Deadline.after(30))
    assert binding.groups["detection"] is new
