"""A pipeline as it is run: steps in an order in which none comes before what feeds it. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, Literal

__all__ = ["OnError", "Pipeline", "Step", "StepKind"]

OnError = Literal["fail", "skip"]


class StepKind(Enum):
    """What a step does. The values are those of the contract."""

    DETECT = "detect"
    RECOGNIZE = "recognize"
    CALL = "call"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step.

    Attributes:
        index: its position in the pipeline.
        stage: that does it; empty for calls.
        api: that is called; empty for others.
        of: position of the step whose regions it works on; None for the page, or for the source.
        after: positions of the steps that must have ended before it.
        classes: of regions of `of` that it works on; empty for all.
        except_classes: those that it leaves alone.
        model: of the stage; empty for its default.
        options: for the stage, by the names of the contract.
        params: of the API: their templates.
        source_params: of the API: those that the source gives.
        on_error: whether a failure fails the source, or is told and passed over.
    """

    index: int
    name: str
    kind: StepKind
    stage: str = ""
    api: str = ""
    of: int | None = None
    after: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    except_classes: tuple[str, ...] = ()
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    source_params: tuple[str, ...] = ()
    on_error: OnError = "skip"

    def wants(self, class_name: str) -> bool:
        """Whether it works on regions of this class."""
        return (not self.classes or class_name in self.classes) and class_name not in self.except_classes


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline: its steps, and what follows from what. Two are equal only if they are the same."""

    name: str
    steps: tuple[Step, ...]

    @cached_property
    def children(self) -> tuple[tuple[Step, ...], ...]:
        """By position: the steps that work on its regions."""
        return tuple(tuple(step for step in self.steps if step.of == index) for index in range(len(self.steps)))

    @cached_property
    def roots(self) -> tuple[Step, ...]:
        """Steps that a stage does on the page itself."""
        return tuple(step for step in self.steps if step.kind is not StepKind.CALL and step.of is None)

    @cached_property
    def first_calls(self) -> tuple[Step, ...]:
        """Calls that are made before anything else, together with those of the source."""
        return tuple(step for step in self.steps if step.kind is StepKind.CALL and step.of is None and not step.after)

    @cached_property
    def last_calls(self) -> tuple[Step, ...]:
        """Calls about the source, made once other steps have ended."""
        return tuple(step for step in self.steps if step.after)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that take part."""
        return tuple(dict.fromkeys(step.stage for step in self.steps if step.stage))

    @cached_property
    def tells_callers(self) -> bool:
        """Whether an API is called with what was found, which then has to be remembered."""
        return any(step.kind is StepKind.CALL and (step.of is not None or step.after) for step in self.steps)

    @cached_property
    def detecting(self) -> Pipeline:
        """The pipeline of a job that wants regions alone: the steps that find some, and what they begin with."""
        kept = [step for step in self.steps if step.kind is StepKind.DETECT or step in self.first_calls]
        places = {step.index: index for index, step in enumerate(kept)}
        return Pipeline(
            self.name,
            tuple(
                replace(step, index=places[step.index], of=None if step.of is None else places[step.of])
                for step in kept
            ),
        )

    def step(self, name: str) -> Step | None:
        """The step of this name."""
        return next((step for step in self.steps if step.name == name), None)
