"""The pipelines of a configuration, as far as whoever starts servers has to know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluiceway_runtime.config import section_values

__all__ = ["Step", "read_pipelines", "used_stages"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: its name.
        stage: the stage that it asks; empty for a call of an API.
        api: the API that it calls; empty where it asks a stage.
        of: the step whose regions it works on; empty for pages and whole sources.
    """

    name: str
    stage: str
    api: str = ""
    of: str = ""


# What there is without any configuration.
DEFAULT_PIPELINES: Mapping[str, tuple[Step, ...]] = {
    "read": (Step("text", "detection"), Step("words", "recognition", of="text"))
}


def read_pipelines(tables: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, tuple[Step, ...]]:
    """Read the steps of every pipeline.

    Lenient, what is no step is left out: to tell what is wrong with it is for the orchestrator's own reader.

    Args:
        tables: what `sluiceway_runtime.config.read_file` returned.
        environment: variables that win over the file.

    Returns:
        Steps by pipeline; those of the default one if none is configured.
    """
    pipelines = section_values("pipelines", tables=tables, environment=environment)
    return {name: _steps(table) for name, table in pipelines.items()} if pipelines else DEFAULT_PIPELINES


def _steps(table: object) -> tuple[Step, ...]:
    steps = table.get("steps") if isinstance(table, Mapping) else None
    texts = ("name", "stage", "api", "of")
    return tuple(
        Step(**{key: step[key] if isinstance(step.get(key), str) else "" for key in texts})
        for step in (steps if isinstance(steps, list) else ())
        if isinstance(step, Mapping)
    )


def used_stages(pipelines: Mapping[str, tuple[Step, ...]]) -> frozenset[str]:
    """Name the stages that some pipeline uses."""
    return frozenset(step.stage for steps in pipelines.values() for step in steps if step.stage)
