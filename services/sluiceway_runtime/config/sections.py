"""Sections as the file and the environment give them, and each as its model."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sluiceway_runtime.errors import ConfigurationError

__all__ = [
    "KNOWN_SECTIONS",
    "VARIABLE_SECTIONS",
    "load_section",
    "read_file",
    "require_known_variables",
    "section_values",
]

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
# Variables that are no keys: of clients, of every process, and of the compose files.
PLAIN_VARIABLES = (
    *("SLUICEWAY_ADDRESS", "SLUICEWAY_TOKEN", "SLUICEWAY_CACHE", "SLUICEWAY_PARENT_PIPE", "SLUICEWAY_CLIENT_TOKEN"),
    "SLUICEWAY_SHARED_PORTS",
    *("SLUICEWAY_VERSION", "SLUICEWAY_CERTIFICATES"),
    *("SLUICEWAY_PORT", "SLUICEWAY_HTTP_PORT", "SLUICEWAY_OPERATIONS_PORT"),
)
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")
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
        # Whatever is there under this name is meant, a folder or a broken link too.
        if not os.path.lexists(path):
            return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    unknown = [name for name in tables if name not in KNOWN_SECTIONS]
    if unknown:
        lines = [f"{path}: [{name}]: unknown section; known are {', '.join(KNOWN_SECTIONS)}" for name in unknown]
        raise ConfigurationError("\n".join(lines))
    return tables


def require_known_variables(environment: Mapping[str, str], tables: Mapping[str, Any] | None = None) -> None:
    """Refuse variables that would be read by nobody.

    Args:
        environment: normally `os.environ`; only command lines read that.
        tables: what `read_file` returned; variables that it names, for secrets, are whoever's choice.

    Raises:
        ConfigurationError: every variable that begins like ours and is none, one a line.
    """
    named = {text for text in (*_texts(tables or {}), *environment.values()) if text.startswith(ENVIRONMENT_PREFIX)}
    lines = []
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in PLAIN_VARIABLES or name in named:
            continue
        # What Kubernetes and Docker tell of services that happen to be called like this.
        if _SERVICE_LINK.search(name) or value.startswith("tcp://"):
            continue
        if fault := _fault_of_variable(name):
            lines.append(f"{name}: {fault}")
    if lines:
        raise ConfigurationError("\n".join(lines))


def _fault_of_variable(name: str) -> str:
    known = [section.upper() for section in VARIABLE_SECTIONS]
    section, separator, _ = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
    if separator:
        return "" if section in known else f"variables are read for {', '.join(known)} alone, in capitals"
    for section in known:
        if name.startswith(f"{ENVIRONMENT_PREFIX}{section}_"):
            key = name.removeprefix(f"{ENVIRONMENT_PREFIX}{section}_")
            return f"is read by nobody; two underscores part section and key: {ENVIRONMENT_PREFIX}{section}__{key}"
    return (
        f"is read by nobody; keys are {ENVIRONMENT_PREFIX}<SECTION>__<KEY>, and there are {', '.join(PLAIN_VARIABLES)}"
    )


def _texts(value: object) -> Iterator[str]:
    """Every text of a table, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


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
