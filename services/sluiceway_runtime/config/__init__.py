"""Configuration: one `sluiceway.toml`, one section for each service, every key also as `SLUICEWAY_<SECTION>__<KEY>`.

Order of precedence: explicit overrides (command line), environment, file, defaults. A section is read once, at start,
into a frozen model; every fault in it is reported in one message, by key.
"""

from __future__ import annotations

from sluiceway_runtime.config.sections import (
    KNOWN_SECTIONS,
    VARIABLE_SECTIONS,
    load_section,
    read_file,
    require_known_variables,
    section_values,
)
from sluiceway_runtime.config.servers import HttpPortConfig, ModelsConfig, Port, ScaleKey, ServerConfig, StageConfig
from sluiceway_runtime.config.stages import DEFAULT_STAGES, STAGE_KINDS, StageEntry, load_stages

__all__ = [
    "DEFAULT_STAGES",
    "KNOWN_SECTIONS",
    "STAGE_KINDS",
    "VARIABLE_SECTIONS",
    "HttpPortConfig",
    "ModelsConfig",
    "Port",
    "ScaleKey",
    "ServerConfig",
    "StageConfig",
    "StageEntry",
    "load_section",
    "load_stages",
    "read_file",
    "require_known_variables",
    "section_values",
]
