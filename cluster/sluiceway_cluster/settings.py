"""The configuration in force as a file: every key with its value, what it means, and where the value comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_runtime.config import ModelsConfig, load_section, section_values
from sluiceway_runtime.server.security import load_security

from sluiceway_cluster.placement import ORCHESTRATOR, Written
from sluiceway_cluster.stages import configured_stages

__all__ = ["as_toml"]

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def as_toml(tables: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Write the configuration as TOML that says the same, with a comment for each key; defaults are commented out.

    Args:
        tables: what `read_file` returned.
        variables: of the environment; they win over the file.

    Raises:
        ConfigurationError: every fault of what it is made of, one a line.
    """
    written = Written(tables, variables)
    lines: list[str] = []
    for stage in configured_stages(tables, variables).values():
        facts = {} if stage.is_default else {"kind": stage.entry.kind, "target": stage.entry.target}
        lines += _section(stage.entry.section, stage.config, written, facts)
    config = load_section(OrchestratorConfig, ORCHESTRATOR, tables=tables, environment=variables)
    lines += _section(ORCHESTRATOR, config, written)
    models = load_section(ModelsConfig, "models", tables=tables, environment=variables)
    lines += _section("models", models, written)
    lines += _section("security", load_security(tables, variables), written)
    for name in ("pipelines", "api"):
        found = section_values(name, tables=tables, environment=variables) if name != "api" else tables.get(name, {})
        for key, table in found.items():
            lines += [
                f"[{name}.{_key(key)}]",
                *(f"{_key(inner)} = {_value(item)}" for inner, item in table.items()),
                "",
            ]
    return "\n".join(lines)


def _section(
    name: str, model: BaseModel, written: Written, facts: Mapping[str, str | None] | None = None
) -> Iterator[str]:
    """A table of a model, then those inside it."""
    yield f"[{name}]"
    for key, fact in (facts or {}).items():
        if fact is not None:
            yield f"{key} = {_value(fact)}"
    inner: list[tuple[str, BaseModel]] = []
    for key, field in type(model).model_fields.items():
        value = getattr(model, key)
        if isinstance(value, BaseModel):
            inner.append((key, value))
            continue
        origin = _origin(name, key, written)
        yield f"# {field.description or key}{origin}"
        plain = _plain(value)
        # What nobody says stays a comment: some keys may be said only together with others, and TOML has no word for
        # nothing.
        line = f"{key} =" if plain is None else f"{key} = {_value(plain)}"
        yield line if key in model.model_fields_set and plain is not None else f"#{line}"
    yield ""
    for key, value in inner:
        yield from _section(f"{name}.{key}", value, written)


def _origin(section: str, key: str, written: Written) -> str:
    outer, *rest = section.split(".")
    place = section if outer == "stages" or not rest else outer
    if len(rest) > (1 if outer == "stages" else 0):
        # Of a table inside: it is told as a whole.
        return ""
    if written.is_variable(place, key):
        return " (from the environment)"
    return " (from the file)" if written.has(place, key) else ""


def _plain(value: object) -> Any:
    """What TOML can hold of a value: models without what is left to their defaults."""
    if isinstance(value, BaseModel):
        return {key: _plain(item) for key, item in value if item is not None and key in value.model_fields_set}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # Texts, numbers and truth are written as in JSON.
    return json.dumps(value, ensure_ascii=False)


def _key(text: str) -> str:
    return text if text and set(text) <= _BARE else json.dumps(text, ensure_ascii=False)
