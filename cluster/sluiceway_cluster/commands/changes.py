"""What the command line changes of the configuration, as the variables that say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sluiceway_runtime import weights
from sluiceway_runtime.config import VARIABLE_SECTIONS, load_stages, read_file
from sluiceway_runtime.errors import ConfigurationError

from sluiceway.cli.embedded import Changes
from sluiceway_cluster.placement import variable

__all__ = ["as_variables"]


def as_variables(changes: Changes, config: Path | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Say in variables what `--set`, `--model` and `--workers` say; they win over those of the environment.

    Args:
        changes: what was typed; what `--set` says wins over the others.
        config: configuration file.
        environment: variables that win over it.

    Raises:
        ConfigurationError: every fault, one a line.
    """
    found: dict[str, str] = {}
    if changes.workers is not None:
        for stage in load_stages(read_file(config), environment).values():
            found[variable(stage.section, "workers")] = str(changes.workers)
    return {**found, **_models(changes.models), **_settings(changes.settings)}


def _models(names: Sequence[str]) -> dict[str, str]:
    registry = weights.load_registry().models
    detectors: list[str] = []
    recognisers: list[str] = []
    for name in names:
        entry = registry.get(name)
        if entry is None and (fault := weights.fault_of(name, kind="detection")):
            known = ", ".join(registry)
            raise ConfigurationError(
                f"--model: {name} is neither a name nor the path of a file ({fault}); known: {known}"
            )
        # A file of one's own is a detector: recognisers need more said of them than a path.
        (recognisers if entry is not None and entry.kind == "recognition" else detectors).append(name)
    if len(detectors) > 1:
        raise ConfigurationError(f"--model: one detector, not {' and '.join(detectors)}")
    found = {variable("detection", "model"): detectors[0]} if detectors else {}
    if recognisers:
        found[variable("recognition", "models")] = json.dumps(recognisers)
    return found


def _settings(settings: Sequence[str]) -> dict[str, str]:
    found, faults = {}, []
    for setting in settings:
        path, equals, value = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not equals or not dot or not key:
            faults.append(f"--set is of the form section.key=value, not {setting}")
        elif section not in VARIABLE_SECTIONS:
            faults.append(f"--set {path}: there are {', '.join(VARIABLE_SECTIONS)}")
        else:
            found[variable(section, key.replace(".", "__"))] = value.strip()
    if faults:
        raise ConfigurationError("\n".join(faults))
    return found
