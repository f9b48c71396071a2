"""The pipelines of a configuration, and the stages that have to be there for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.config.pipelines import DEFAULT_PIPELINE
from sluiceway_orchestrator.installation import api_facts
from sluiceway_orchestrator.pipelines.load import load_pipelines
from sluiceway_orchestrator.plan import Pipeline
from sluiceway_runtime.config import StageEntry, section_values
from sluiceway_runtime.errors import ConfigurationError

__all__ = ["needed_pipelines", "steps_in_words"]


def needed_pipelines(
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
    stages: Iterable[StageEntry],
    apis: Mapping[str, ApiConfig],
) -> tuple[Pipeline, ...]:
    """Read the pipelines that are configured, and the one of jobs that name none.

    Args:
        tables: what `sluiceway_runtime.config.read_file` returned.
        environment: variables that win over the file.
        stages: every stage of the configuration.
        apis: every API of the configuration.

    Raises:
        ConfigurationError: every fault of every pipeline, one a line, each naming its key.
    """
    configured = section_values("pipelines", tables=tables, environment=environment)
    kinds = {stage.name: stage.kind for stage in stages}
    found = load_pipelines({"pipelines": configured}, kinds, api_facts(apis))
    orchestrator = section_values("orchestrator", tables=tables, environment=environment)
    default = orchestrator.get("default_pipeline", DEFAULT_PIPELINE)
    if default not in found:
        known = ", ".join(found)
        raise ConfigurationError(f"orchestrator.default_pipeline: no pipeline is called {default!r}; there are {known}")
    return tuple(pipeline for name, pipeline in found.items() if name in configured or name == default)


def steps_in_words(pipeline: Pipeline) -> str:
    """Name the steps of a pipeline, each with who does it and what it works on."""
    return ", ".join(
        f"{step.name} ({f'API {step.api}' if step.api else step.stage}"
        f"{'' if step.of is None else f' of {pipeline.steps[step.of].name}'})"
        for step in pipeline.steps
    )
