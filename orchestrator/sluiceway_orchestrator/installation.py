"""What an installation consists of, as the orchestrator sees it: stages, their places, and pipelines over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sluiceway_runtime.config import load_stages, section_values
from sluiceway_runtime.errors import ConfigurationError

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.config.pipelines import DEFAULT_PIPELINE
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_orchestrator.plan import Pipeline

__all__ = ["Layout", "StagePlace", "api_facts", "layout_of"]


@dataclass(frozen=True, slots=True)
class StagePlace:
    """One stage: what it is, and where."""

    name: str
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Stages and pipelines of an installation.

    Attributes:
        stages: every stage that is configured, by name; the default ones always are.
        pipelines: by name; `read` is there without being configured, as long as it is the default.
    """

    stages: Mapping[str, StagePlace]
    pipelines: Mapping[str, Pipeline]

    @property
    def used_stages(self) -> tuple[str, ...]:
        """Names of the stages that a pipeline uses."""
        used = {name for pipeline in self.pipelines.values() for name in pipeline.stages}
        return tuple(name for name in self.stages if name in used)


class RunningApi(Protocol):
    """What a made API knows of itself."""

    params: tuple[str, ...]
    brings_values: bool


def api_facts(apis: Mapping[str, ApiConfig]) -> dict[str, ApiFacts]:
    """What tables alone say of APIs; of a user's class they say nothing."""
    return {
        name: ApiFacts() if api.caller is not None else ApiFacts(api.params, api.image != "body")
        for name, api in apis.items()
    }


def layout_of(
    config: OrchestratorConfig,
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
    apis: Mapping[str, RunningApi],
) -> Layout:
    """Read the stages and pipelines of a configuration.

    Args:
        config: the orchestrator's section.
        tables: the whole configuration.
        environment: its variables.
        apis: as they were made of their tables.

    Raises:
        ConfigurationError: with every fault, each naming its key.
    """
    faults: list[str] = []
    entries = load_stages(tables, environment)
    default = {"detection": config.detection, "recognition": config.recognition}
    facts = {name: ApiFacts(tuple(api.params), api.brings_values) for name, api in apis.items()}
    pipelines: dict[str, Pipeline] = {}
    written = {"pipelines": section_values("pipelines", tables=tables, environment=environment)}
    try:
        pipelines = load_pipelines(written, {name: entry.kind for name, entry in entries.items()}, facts)
    except ConfigurationError as error:
        faults.append(str(error))
    if config.default_pipeline != DEFAULT_PIPELINE and DEFAULT_PIPELINE not in written["pipelines"]:
        # Nobody asked for it, and its stages may not be there.
        pipelines.pop(DEFAULT_PIPELINE, None)
    stages = {
        name: StagePlace(name, entry.kind, entry.target or default.get(name, "")) for name, entry in entries.items()
    }
    layout = Layout(stages, pipelines)
    faults += [
        f"stages.{name}.target: a pipeline uses this stage, and nothing says where it is"
        for name in layout.used_stages
        if not stages[name].target
    ]
    if pipelines and config.default_pipeline not in pipelines:
        known = ", ".join(pipelines)
        faults.append(
            f"orchestrator.default_pipeline: no pipeline is called {config.default_pipeline!r}; there are {known}"
        )
    if faults:
        raise ConfigurationError("\n".join(faults))
    return layout
