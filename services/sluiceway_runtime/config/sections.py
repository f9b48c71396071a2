"""Sections as the file and the environment give them, and each as its model."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sluiceway_runtime.errors import ConfigurationError

__all__ = ["KNOWN_SECTIONS", "load_section", "read_file", "require_known_variables", "section_values"]

ENVIRONMENT_PREFIX = "SLUICEWAY_"
DEFAULT_FILE = "sluiceway.toml"
STAGES = "stages"
# Keys of `[stages.NAME]` that are for whoever starts and finds the stage; the others are those of its kind's section.
OF_THE_STAGE = ("kind", "target")
# Sections that a file may have; `api`, `stages` and `pipelines` hold one table for each of their kind. A service checks
# its own section in depth and the others only by name: it does not know their models.
KNOWN_SECTIONS = ("detection", "recognition", "orchestrator", "api", "models", "security", STAGES, "pipelines")
# Those whose keys may be variables.
VARIABLE_SECTIONS = ("detection", "recognition", "orchestrator", "models", "security", STAGES, "pipelines")
# What pydantic says in Python's words, by the type of its fault.
_PLAIN = {
    "extra_forbidden": "unknown key",
    "tuple_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table of keys",
    "model_type": "must be a table of keys",
}
Section = TypeVar("Section", bound=BaseModel)


def read_file(path: Path | None) -> dict[str, Any]:
    """Read the configuration file.

    Args:
        path: the file; None reads `sluiceway.toml` in the working directory if there is one.

    Returns:
        The tables as they are; empty without a file.

    Raises:
        ConfigurationError: the file named does not exist, is no TOML, or has an unknown section.
    """
    if path is None:
        path = Path(DEFAULT_FILE)
        if not path.is_file():
            return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    unknown = [name for name in tables if name not in KNOWN_SECTIONS]
    if unknown:
        lines = [f"{path}: [{name}]: unknown section; known are {', '.join(KNOWN_SECTIONS)}" for name in unknown]
        raise ConfigurationError("\n".join(lines))
    return tables


def require_known_variables(environment: Mapping[str, str]) -> None:
    """Refuse variables that would be read by nobody.

    Raises:
        ConfigurationError: one is `SLUICEWAY_<SECTION>__<KEY>` of no section that variables are read for.
    """
    known = [section.upper() for section in VARIABLE_SECTIONS]
    lines = []
    for name in sorted(environment):
        section, separator, _ = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
        if name.startswith(ENVIRONMENT_PREFIX) and separator and section not in known:
            lines.append(f"{name}: variables are read for {', '.join(known)} alone, in capitals")
    if lines:
        raise ConfigurationError("\n".join(lines))


def load_section(
    model: type[Section],
    section: str,
    *,
    tables: Mapping[str, Any],
    environment: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Section:
    """Build one section from file, environment and overrides.

    Args:
        model: what the section has to look like.
        section: its name in the file and, in upper case, in the environment; that of a stage is `stages.NAME`, of which
            the keys that say what the stage is are left out.
        tables: what `read_file` returned.
        environment: normally `os.environ`; only command lines read that.
        overrides: keys set on the command line, those of tables with dots between; None values are skipped.

    Returns:
        The section, frozen.

    Raises:
        ConfigurationError: with every fault of the section, one a line, each naming its key.
    """
    outer, _, name = section.partition(".")
    values = section_values(outer, tables=tables, environment=environment)
    if name:
        inner = values.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"[{section}]: must be a table")
        values = {key: value for key, value in inner.items() if outer != STAGES or key not in OF_THE_STAGE}
    for key, value in (overrides or {}).items():
        if value is not None:
            _assign(values, key.split("."), _from_text(value) if isinstance(value, str) else value)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_faults(section, values, error))) from error


def section_values(section: str, *, tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """What file and environment say in one section, as it is written.

    Args:
        section: its name, one of `KNOWN_SECTIONS`.
        tables: what `read_file` returned.
        environment: normally `os.environ`; only command lines read that.

    Raises:
        ConfigurationError: the section is no table.
    """
    table = tables.get(section, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"[{section}]: must be a table")
    values = dict(table)
    prefix = f"{ENVIRONMENT_PREFIX}{section}__".upper()
    # Sorted, so that a variable for a whole table comes before those for its keys.
    for name, text in sorted(environment.items()):
        if name.startswith(prefix):
            _assign(values, name[len(prefix) :].lower().split("__"), _from_text(text))
    return values


def _assign(values: dict[str, Any], path: list[str], value: object) -> None:
    for key in path[:-1]:
        inner = values.get(key)
        values[key] = values = dict(inner) if isinstance(inner, dict) else {}
    values[path[-1]] = value


def _from_text(text: str) -> object:
    """Lists and tables are written as JSON; anything else stays text and is converted by the model."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _faults(section: str, values: Mapping[str, Any], error: ValidationError) -> list[str]:
    faults = error.errors(include_url=False, include_input=False)
    messages: dict[str, list[str]] = {}
    for fault in faults:
        # Where an item of a list is wrong, pydantic goes on to say that the list is too short.
        within = [other for other in faults if other is not fault and other["loc"][: len(fault["loc"])] == fault["loc"]]
        if fault["type"] != "too_short" or not within:
            text = _PLAIN.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
            messages.setdefault(".".join((section, *_keys(values, fault["loc"]))), []).append(text)
    return [f"{key}: {'; or '.join(texts)}" for key, texts in messages.items()]


def _keys(values: object, path: Sequence[str | int]) -> Iterator[str]:
    """The part of a fault's path that is keys; where a value may be of several types, their names follow."""
    for part in path:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, Sequence) and isinstance(part, int):
            values = values[part] if part < len(values) else None
        else:
            return
        yield str(part)
