"""The registry: which weights and sample images have a name, where they come from, and what they must hash to."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Literal

__all__ = ["Conversion", "Entry", "Kind", "PackagedFile", "Registry", "WheelTags", "load_registry", "parse_registry"]

Kind = Literal["detection", "recognition", "sample"]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file inside a wheel."""

    role: str
    member: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name without folders, as kept in the cache."""
        return PurePosixPath(self.member).name


@dataclass(frozen=True, slots=True)
class WheelTags:
    """Names one wheel of a package that has one for each Python and platform."""

    python: str
    abi: str
    platform: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the file of one role becomes the model: `python -m MODULE SOURCE TARGET`, where `requires` is installed."""

    module: str
    requires: str
    role: str
    file: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of the registry.

    Exactly one of `package` and `shipped` is set: the file lies in a package, or in this distribution. `tests` marks
    what the project's own tests need.
    """

    name: str
    kind: Kind
    title: str
    version: str
    licence: str
    source: str
    files: tuple[PackagedFile, ...]
    package: str | None = None
    shipped: str | None = None
    wheel: WheelTags | None = None
    convert: Conversion | None = None
    download_bytes: int = 0
    cost_ms: float | None = None
    tests: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main_role(self) -> str:
        """The role of the file that is loaded: the model, or a sample's image."""
        return "image" if self.kind == "sample" else "model"


@dataclass(frozen=True, slots=True)
class Registry:
    """Every known name."""

    models: Mapping[str, Entry]
    samples: Mapping[str, Entry]


def parse_registry(text: str) -> Registry:
    """Read a registry file.

    Args:
        text: TOML as in `registry.toml`.

    Raises:
        KeyError, TypeError: an entry lacks a field or has an unknown one; the file is part of the program.
    """
    tables = tomllib.loads(text)
    return Registry(
        models={name: _entry(name, table) for name, table in tables.get("models", {}).items()},
        samples={name: _entry(name, table | {"kind": "sample"}) for name, table in tables.get("samples", {}).items()},
    )


@cache
def load_registry() -> Registry:
    """Return the registry that comes with this release."""
    return parse_registry(resources.files(__package__).joinpath("registry.toml").read_text(encoding="utf-8"))


def _entry(name: str, table: Mapping[str, Any]) -> Entry:
    fields = dict(table)
    files = tuple(PackagedFile(role=role, **rest) for role, rest in fields.pop("files", {}).items())
    wheel, convert = fields.pop("wheel", None), fields.pop("convert", None)
    return Entry(
        name=name,
        files=files,
        wheel=WheelTags(**wheel) if wheel else None,
        convert=Conversion(**convert) if convert else None,
        **fields,
    )
