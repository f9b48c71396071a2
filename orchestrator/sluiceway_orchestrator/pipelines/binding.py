"""Which version of each stage a source is bound to, and what its stages are asked for by that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import UnknownModel
from sluiceway_runtime.together import nursery

from sluiceway_orchestrator.convert.specs import crop_fields, head_fields, model_for, serves
from sluiceway_orchestrator.plan import Pipeline, StepKind
from sluiceway_orchestrator.stages.group import Group
from sluiceway_orchestrator.stages.stage import Stage

__all__ = ["Binder", "Binding"]

# Bindings that are remembered; versions are few, and come and go with deployments.
_MOST = 256


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """What one source works with.

    Attributes:
        groups: by stage.
        crop_fields: by step that detects: what is to be cut, as fields of its request.
        heads: by step that reads: the model, as fields of its request.
        models: by step that reads: the name of the model.
    """

    groups: Mapping[str, Group[Any]]
    crop_fields: Mapping[int, bytes]
    heads: Mapping[int, bytes]
    models: Mapping[int, str]


class Binder:
    """Binds sources. What follows from the versions alone is made once for each choice of them."""

    def __init__(self, stages: Mapping[str, Stage[Any]]) -> None:
        self._stages = stages
        self._known: dict[tuple[object, ...], Binding] = {}

    async def bind(self, pipeline: Pipeline, deadline: Deadline) -> Binding:
        """Choose a version of each stage; waits for stages that have no replica.

        Raises:
            Unavailable: one had none within the deadline.
            UnknownModel: a step names a model that no version of its stage serves.
        """
        chosen = self._choose(pipeline)
        while None in chosen:
            # For all at once, so that each is woken where they are scaled to zero. What was chosen is chosen again, as
            # it may be gone when the last of them is there.
            await self._wait(pipeline, deadline)
            chosen = self._choose(pipeline)
        groups = [group for group in chosen if group is not None]
        key = (pipeline, *groups)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[key] = _bound(pipeline, dict(zip(pipeline.stages, groups, strict=True)))
        return known

    @contextmanager
    def holding(self, binding: Binding) -> Iterator[None]:
        """A source works with this: see `Versions.hold`."""
        for name, group in binding.groups.items():
            self._stages[name].versions.hold(group)
        try:
            yield
        finally:
            for name, group in binding.groups.items():
                self._stages[name].versions.release(group)

    def _choose(self, pipeline: Pipeline) -> Sequence[Group[Any] | None]:
        return [self._stages[name].bind_now(partial(serves, pipeline, name)) for name in pipeline.stages]

    async def _wait(self, pipeline: Pipeline, deadline: Deadline) -> None:
        async with nursery() as group:
            for name in pipeline.stages:
                group.create_task(self._stages[name].wait_there(deadline))


def _bound(pipeline: Pipeline, groups: Mapping[str, Group[Any]]) -> Binding:
    descriptions = {name: group.description for name, group in groups.items()}
    crops: dict[int, bytes] = {}
    heads: dict[int, bytes] = {}
    models: dict[int, str] = {}
    for step in pipeline.steps:
        if step.kind is StepKind.DETECT:
            crops[step.index] = crop_fields(pipeline, step, descriptions)
        elif step.kind is StepKind.RECOGNIZE:
            model = model_for(step, descriptions[step.stage])
            if model is None:
                raise UnknownModel(
                    f"step {step.name}: {step.stage} serves no model {step.model!r}", metadata={"model": step.model}
                )
            models[step.index] = model.model.name
            heads[step.index] = head_fields(model.model.name)
    return Binding(groups, crops, heads, models)
