"""From the tables `[pipelines.NAME]` to pipelines; whatever is wrong is told by key, all of it at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from sluiceway_runtime.errors import ConfigurationError

from sluiceway_orchestrator.config.pipelines import DEFAULT_PIPELINE, PipelineConfig, StepConfig
from sluiceway_orchestrator.pipelines.template import REGION_NAMES, SOURCE_NAMES, placeholders
from sluiceway_orchestrator.plan import Pipeline, Step, StepKind

__all__ = ["ApiFacts", "load_pipelines"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KINDS = {"detection": StepKind.DETECT, "recognition": StepKind.RECOGNIZE}
_OPTIONS: Mapping[StepKind, frozenset[str]] = {
    StepKind.DETECT: frozenset(
        {"confidence", "iou", "classes", "max_detections", "image_size", "scale", "class_agnostic"}
    ),
    StepKind.RECOGNIZE: frozenset({"characters", "words", "top_k"}),
    StepKind.CALL: frozenset(),
}
# Without any configuration: find text, read it. `text-small` also finds pictures, in which there is nothing to read.
_READ: Mapping[str, Any] = {
    "steps": [
        {"name": "text", "stage": "detection"},
        {"name": "words", "stage": "recognition", "of": "text", "except_classes": ["image"]},
    ]
}


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """What a step has to know of an API; None where only the running API can tell.

    Attributes:
        params: that a call must give.
        brings_values: whether an answer holds anything but an image.
    """

    params: tuple[str, ...] | None = None
    brings_values: bool | None = None


def load_pipelines(
    tables: Mapping[str, Any], stages: Mapping[str, str], apis: Mapping[str, ApiFacts]
) -> dict[str, Pipeline]:
    """Read every `[pipelines.NAME]`; the pipeline `read` exists without being configured.

    Args:
        tables: the whole configuration.
        stages: names of the stages to their kinds.
        apis: what is known of the configured APIs.

    Raises:
        ConfigurationError: with every fault of every pipeline, each naming its key.
    """
    section = tables.get("pipelines", {})
    if not isinstance(section, Mapping):
        raise ConfigurationError("pipelines: must hold a table for each pipeline")
    pipelines: dict[str, Pipeline] = {}
    faults: list[str] = []
    for name, table in ({DEFAULT_PIPELINE: _READ} | dict(section)).items():
        key = f"pipelines.{name}"
        if not _NAME.fullmatch(name):
            faults.append(f"{key}: a name is small letters, digits and '_', begins with a letter, and has at most 64")
            continue
        try:
            config = PipelineConfig.model_validate(table)
        except ValidationError as error:
            faults += _model_faults(key, table, error)
            continue
        found = list(_faults(key, config.steps, stages, apis))
        faults += found
        if not found:
            pipelines[name] = Pipeline(name, _compile(config.steps, stages, apis))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return pipelines


def _model_faults(key: str, table: object, error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        text = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        yield f"{key}.{'.'.join(_named(table, fault['loc']))}: {text}" if fault["loc"] else f"{key}: {text}"


def _named(table: object, path: tuple[str | int, ...]) -> Iterator[str]:
    """The keys on the way to a fault; a step by its name, where it has one."""
    for part in path:
        inner = None
        if isinstance(table, Mapping):
            inner = table.get(part)
        elif isinstance(table, (list, tuple)) and isinstance(part, int) and part < len(table):
            inner = table[part]
        if isinstance(part, int) and isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            yield inner["name"]
        else:
            yield str(part)
        table = inner


def _faults(
    key: str, steps: tuple[StepConfig, ...], stages: Mapping[str, str], apis: Mapping[str, ApiFacts]
) -> Iterator[str]:
    by_name: dict[str, StepConfig] = {}
    for step in steps:
        if not _NAME.fullmatch(step.name):
            yield f"{key}.steps.{step.name}.name: a name is small letters, digits and '_' and begins with a letter"
        elif step.name in by_name:
            yield f"{key}.steps.{step.name}.name: two steps have it"
        by_name.setdefault(step.name, step)
    kinds = {step.name: _kind(step, stages) for step in steps}
    for step in steps:
        where = f"{key}.steps.{step.name}"
        yield from _target_faults(where, step, stages, apis)
        yield from _input_faults(where, step, by_name, kinds)
        kind = kinds[step.name]
        if kind is not None:
            yield from _key_faults(where, step, kind)
        if kind is StepKind.CALL and step.api is not None and step.api in apis:
            yield from _param_faults(where, step, apis[step.api])
    if not any(kind not in (None, StepKind.CALL) for kind in kinds.values()):
        yield f"{key}.steps: none is done by a stage, so nothing would look at the source"
    circle = _circle(by_name)
    if circle:
        yield f"{key}.steps.{circle[0]}: is fed by itself: {' <- '.join(circle)}"


def _kind(step: StepConfig, stages: Mapping[str, str]) -> StepKind | None:
    if step.api is not None:
        return StepKind.CALL if step.stage is None else None
    return _KINDS.get(stages.get(step.stage or "", ""))


def _target_faults(
    where: str, step: StepConfig, stages: Mapping[str, str], apis: Mapping[str, ApiFacts]
) -> Iterator[str]:
    if (step.stage is None) == (step.api is None):
        yield f"{where}: exactly one of `stage` and `api` must be given"
    elif step.stage is not None and step.stage not in stages:
        yield f"{where}.stage: no stage is called {step.stage!r}; there are {', '.join(stages)}"
    elif step.api is not None and step.api not in apis:
        yield f"{where}.api: no API is called {step.api!r}; there are {', '.join(apis) or 'none'}"


def _input_faults(
    where: str, step: StepConfig, by_name: Mapping[str, StepConfig], kinds: Mapping[str, StepKind | None]
) -> Iterator[str]:
    if step.of is not None:
        if step.of not in by_name:
            yield f"{where}.of: nothing feeds it: no step is called {step.of!r}"
        elif step.stage is not None and kinds[step.of] not in (StepKind.DETECT, None):
            yield f"{where}.of: {step.of!r} finds no regions; a stage works on those of a step that detects"
        elif step.api is not None and kinds[step.of] is StepKind.CALL:
            yield f"{where}.of: {step.of!r} is a call; a call works on regions that a stage found or read"
        elif step.api is not None and kinds[step.of] is StepKind.RECOGNIZE and by_name[step.of].of is None:
            yield f"{where}.of: {step.of!r} reads the page, which has no regions; write after = [{step.of!r}]"
    for name in step.after:
        if name not in by_name:
            yield f"{where}.after: nothing feeds it: no step is called {name!r}"
    if step.of is not None and step.after:
        yield f"{where}: `of` is for each region, `after` for the source; give one of them"


def _key_faults(where: str, step: StepConfig, kind: StepKind) -> Iterator[str]:
    if kind is not StepKind.CALL and step.after:
        yield f"{where}.after: only calls wait for other steps; a stage works on the regions of `of`"
    if kind is not StepKind.CALL and step.params:
        yield f"{where}.params: only calls have parameters"
    if kind is not StepKind.RECOGNIZE and step.model is not None:
        yield f"{where}.model: only recognition has several models; a detection stage names its own"
    if step.of is None and (step.except_classes or (step.classes and kind is not StepKind.DETECT)):
        key = "except_classes" if step.except_classes else "classes"
        yield f"{where}.{key}: without `of` there are no regions that have classes"
    if step.of is None and step.classes and step.options.classes is not None:
        yield f"{where}.options.classes: says the same as `classes` of a step on the page; give one of them"
    for name in sorted(step.options.model_fields_set - _OPTIONS[kind]):
        yield f"{where}.options.{name}: a step that does {kind.value!r} has no such option"


def _param_faults(where: str, step: StepConfig, api: ApiFacts) -> Iterator[str]:
    about_region = step.of is not None
    if (about_region or step.after) and api.brings_values is False:
        yield f"{where}.api: {step.api!r} answers with an image alone, and so has nothing to say here"
    known = SOURCE_NAMES | (REGION_NAMES if about_region else frozenset())
    for name, template in step.params.items():
        if api.params is not None and name not in api.params:
            yield f"{where}.params.{name}: {step.api!r} has no such parameter"
        for word in placeholders(template):
            if word not in known and not word.startswith("param."):
                yield f"{where}.params.{name}: {{{word}}} is not known here; there are {', '.join(sorted(known))}"
    missing = sorted(set(api.params or ()) - set(step.params))
    if missing and (about_region or step.after):
        yield f"{where}.params: {step.api!r} cannot be called without {', '.join(missing)}"


def _circle(by_name: Mapping[str, StepConfig]) -> list[str]:
    """Steps that feed each other, the first of them once more at the end; empty if there are none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in by_name:
            return []
        step = by_name[name]
        for feeder in (*((step.of,) if step.of is not None else ()), *step.after):
            circle = visit(feeder, [*path, name])
            if circle:
                return circle
        done.add(name)
        return []

    return next((circle for name in by_name if (circle := visit(name, []))), [])


def _compile(
    steps: tuple[StepConfig, ...], stages: Mapping[str, str], apis: Mapping[str, ApiFacts]
) -> tuple[Step, ...]:
    by_name = {step.name: step for step in steps}
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            step = by_name[name]
            for feeder in (*((step.of,) if step.of is not None else ()), *step.after):
                visit(feeder)
            order.append(name)

    for step in steps:
        visit(step.name)
    places = {name: index for index, name in enumerate(order)}
    return tuple(_step(by_name[name], places, stages, apis) for name in order)


def _step(
    config: StepConfig, places: Mapping[str, int], stages: Mapping[str, str], apis: Mapping[str, ApiFacts]
) -> Step:
    kind = _kind(config, stages)
    assert kind is not None
    on_page = kind is not StepKind.CALL and config.of is None
    default: Literal["fail", "skip"] = "fail" if on_page else "skip"
    declared = (apis[config.api].params or ()) if config.api is not None else ()
    first = kind is StepKind.CALL and config.of is None and not config.after
    options = config.options.model_dump(exclude_none=True)
    if "scale" in options:
        options["scale"] = str(options["scale"])
    if on_page and config.classes:
        # On the page there is nothing to choose from but what it finds itself.
        options["classes"] = config.classes
    return Step(
        places[config.name],
        config.name,
        kind,
        stage=config.stage or "",
        api=config.api or "",
        of=places[config.of] if config.of is not None else None,
        after=tuple(places[name] for name in config.after),
        classes=config.classes,
        except_classes=config.except_classes,
        model=config.model or "",
        options=options,
        params=dict(config.params),
        source_params=tuple(name for name in declared if name not in config.params) if first else (),
        on_error=config.on_error or default,
    )
