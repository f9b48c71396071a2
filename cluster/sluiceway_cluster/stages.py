"""The stages of a configuration: what each is, what it loads, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sluiceway_detection.config import DetectionConfig
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime import weights
from sluiceway_runtime.config import (
    DEFAULT_STAGES,
    StageConfig,
    StageEntry,
    load_section,
    load_stages,
)
from sluiceway_runtime.errors import ConfigurationError

from sluiceway_cluster.division import WORDS_PER_IMAGE

__all__ = ["MODULES", "ConfiguredStage", "configured_stages", "model_faults"]

# The program of each kind, and the model of its section.
MODULES = {"detection": "sluiceway_detection", "recognition": "sluiceway_recognition"}
MODELS: Mapping[str, type[StageConfig]] = {"detection": DetectionConfig, "recognition": RecognitionConfig}
# For weights that the registry does not know: what a small detector and a small recogniser cost.
DEFAULT_DETECTION_MS, DEFAULT_WORD_MS = 57.0, 0.5


@dataclass(frozen=True, slots=True)
class ConfiguredStage:
    """A stage and its section.

    Attributes:
        entry: what it is.
        config: its section.
    """

    entry: StageEntry
    config: StageConfig

    @property
    def name(self) -> str:
        """By which pipelines know it."""
        return self.entry.name

    @property
    def is_default(self) -> bool:
        """Whether every installation has it."""
        return self.name in DEFAULT_STAGES

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the program of its kind has to be told, so that it is this stage."""
        return () if self.is_default else ("--stage", self.name)

    @property
    def models(self) -> tuple[str, ...]:
        """What it loads: names of the registry and paths of the user; nothing where the user's own code does it all."""
        if isinstance(self.config, DetectionConfig):
            return () if self.config.detector else (self.config.model,)
        assert isinstance(self.config, RecognitionConfig)
        return tuple(model.weights or model.name for model in self.config.models if model.recognizer is None)

    @property
    def weights(self) -> tuple[str, ...]:
        """Those of its models that the registry has."""
        known = weights.load_registry().models
        return tuple(name for name in dict.fromkeys(self.models) if name in known)

    @property
    def cost_ms(self) -> float:
        """What one image costs, in milliseconds of one core."""
        if isinstance(self.config, DetectionConfig):
            return _cost_ms(self.config.model, DEFAULT_DETECTION_MS)
        words_ms = (_cost_ms(name, DEFAULT_WORD_MS) for name in self.models)
        return max(words_ms, default=DEFAULT_WORD_MS) * WORDS_PER_IMAGE


def configured_stages(tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, ConfiguredStage]:
    """Read every stage of a configuration, whether a pipeline uses it or not.

    Args:
        tables: what `read_file` returned.
        environment: variables that win over the file.

    Returns:
        The stages by name, the default ones first.

    Raises:
        ConfigurationError: every fault of every section, one a line.
    """
    found: dict[str, ConfiguredStage] = {}
    faults: list[str] = []
    for entry in load_stages(tables, environment).values():
        try:
            config = load_section(MODELS[entry.kind], entry.section, tables=tables, environment=environment)
            found[entry.name] = ConfiguredStage(entry, config)
        except ConfigurationError as error:
            faults.append(str(error))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return found


def model_faults(stages: Mapping[str, ConfiguredStage]) -> list[str]:
    """Say which models of a configuration are not there under the names or paths that they have, by key."""
    found = []
    for stage in stages.values():
        config, section = stage.config, stage.entry.section
        if isinstance(config, DetectionConfig):
            wanted = {} if config.detector else {f"{section}.model": config.model}
        else:
            assert isinstance(config, RecognitionConfig)
            wanted = {
                f"{section}.models.{model.name}": model.weights or model.name
                for model in config.models
                if model.recognizer is None
            }
        kind: Literal["detection", "recognition"] = "detection" if stage.entry.kind == "detection" else "recognition"
        for key, name in wanted.items():
            if fault := weights.fault_of(name, kind=kind):
                found.append(f"{key}: {fault}")
    return found


def _cost_ms(name: str, default: float) -> float:
    entry = weights.load_registry().models.get(name)
    return entry.cost_ms if entry and entry.cost_ms else default
