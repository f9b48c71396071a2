"""Configuration: one `sluiceway.toml`, one section for each service, every key also as `SLUICEWAY_<SECTION>__<KEY>`.

Order of precedence: explicit overrides (command line), environment, file, defaults. A section is read once, at start,
into a frozen model; every fault in it is reported in one message, by key.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sluiceway_runtime.errors import ConfigurationError

__all__ = [
    "KNOWN_SECTIONS",
    "ModelsConfig",
    "Port",
    "ServerConfig",
    "StageConfig",
    "load_section",
    "read_file",
    "require_known_variables",
]

ENVIRONMENT_PREFIX = "SLUICEWAY_"
DEFAULT_FILE = "sluiceway.toml"
# Sections that a file may have; `api` holds one table for each external API. A service checks its own section in depth
# and the others only by name: it does not know their models.
KNOWN_SECTIONS = ("detection", "recognition", "orchestrator", "api", "models", "security")
# Those whose keys may be variables.
VARIABLE_SECTIONS = ("detection", "recognition", "orchestrator", "models", "security")

Port = Annotated[int, Field(ge=0, le=65535)]
# What pydantic says in Python's words, by the type of its fault.
_PLAIN = {
    "extra_forbidden": "unknown key",
    "tuple_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table of keys",
    "model_type": "must be a table of keys",
}
# The bounds belong to the number alone: on a union they would be applied to its words as well.
Count = Annotated[int, Field(ge=1, le=1024)]
Section = TypeVar("Section", bound=BaseModel)


class ServerConfig(BaseModel):
    """What every server has. Ports of 0 let the system choose (tests)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: Port = Field(description="gRPC port.")
    operations_port: Port = Field(description="HTTP port of /livez, /readyz and /metrics.")
    max_message_bytes: int = Field(64 * 2**20, ge=2**16, le=2**31 - 1, description="Largest gRPC message, both ways.")
    default_deadline_s: float = Field(30, gt=0, description="For calls that come without a deadline.")
    max_deadline_s: float = Field(300, gt=0, description="Longer deadlines are cut to this.")
    drain_grace_s: float = Field(20, ge=0, description="After SIGTERM: how long running requests may take to finish.")
    drain_notice_s: float = Field(
        0.5, ge=0, description="After SIGTERM: calls are still taken this long while health says NOT_SERVING."
    )
    reflection: bool = Field(True, description="Serve grpc.reflection, for grpcurl and the like.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of a line of the log, which goes to standard error."
    )
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line, for collectors.")


class StageConfig(ServerConfig):
    """What every stage (a server with a worker pool) has besides."""

    workers: Count | Literal["auto"] = Field(
        "auto", description="Worker processes in all on a CPU; `auto` follows the goal and the cores."
    )
    workers_per_device: Annotated[int, Field(ge=1, le=16)] | Literal["auto"] = Field(
        "auto", description="Worker processes for each GPU; `auto`: one, and two where files are decoded for it."
    )
    threads_per_worker: Count | Literal["auto"] = Field("auto", description="Compute threads per worker.")
    goal: Literal["throughput", "latency"] = Field(
        "throughput", description="throughput: a worker a core. latency: few workers with many threads."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="auto takes every GPU, else the CPU."
    )
    cores: str | None = Field(
        None,
        pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$",
        description="Cores that are this server's own, such as 0-3,6; workers are pinned to them.",
    )
    cpus: float | None = Field(
        None, gt=0, description="CPUs to plan for, where that is less than what may be used; a pod is told it."
    )
    max_batch: int = Field(1, ge=1, le=4096, description="Most items in a batch.")
    queue_items: int = Field(256, ge=1, description="Most items waiting; more are refused with QUEUE_FULL.")
    queue_bytes: int = Field(256 * 2**20, ge=2**20, description="Most payload bytes waiting.")
    batch_timeout_s: float = Field(60, gt=0, description="A worker that computes one batch for longer is replaced.")
    start_timeout_s: float = Field(120, gt=0, description="A worker that is not ready by then fails the start.")
    worker_memory_mb: int | None = Field(None, ge=64, description="A worker above this is replaced after its batch.")

    @field_validator("cores")
    @classmethod
    def _cores(cls, value: str | None) -> str | None:
        for part in (value or "").split(","):
            first, dash, last = part.partition("-")
            if dash and int(last) < int(first):
                raise ValueError(f"{part} ends before it begins")
        return value


class ModelsConfig(BaseModel):
    """What `[models]` may say, for every server alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auto_pull: bool | None = Field(
        None, description="Download missing weights at the start; by default `up` and `run` do, one server does not."
    )


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
        section: its name in the file and, in upper case, in the environment.
        tables: what `read_file` returned.
        environment: normally `os.environ`; only command lines read that.
        overrides: keys set on the command line, those of tables with dots between; None values are skipped.

    Returns:
        The section, frozen.

    Raises:
        ConfigurationError: with every fault of the section, one a line, each naming its key.
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
    for key, value in (overrides or {}).items():
        if value is not None:
            _assign(values, key.split("."), _from_text(value) if isinstance(value, str) else value)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_faults(section, values, error))) from error


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
