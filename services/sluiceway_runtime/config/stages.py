"""Stages by name: the two that every installation has, and those that `[stages.NAME]` adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sluiceway_runtime.config.sections import OF_THE_STAGE, STAGES, section_values
from sluiceway_runtime.errors import ConfigurationError

__all__ = ["DEFAULT_STAGES", "STAGE_KINDS", "StageEntry", "load_stages"]

# What a stage can be: each is a program of its own.
STAGE_KINDS = ("detection", "recognition")
# Those of these names are always there, each of the kind that it is called like, with the section of that name.
DEFAULT_STAGES = STAGE_KINDS
# A variable's name is cut where two underscores stand, so a stage's name has them neither inside nor at its end.
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Names of other servers.
_TAKEN = (*DEFAULT_STAGES, "orchestrator")


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage of the installation.

    Attributes:
        name: by which pipelines, metrics and logs know it.
        kind: "detection" or "recognition".
        target: where it is, as configured in its own table; None if that is for whoever starts it to say.
        section: what `load_section` calls its section.
    """

    name: str
    kind: str
    target: str | None
    section: str


def load_stages(tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, StageEntry]:
    """Find the stages of an installation. What else their sections say is for their own models.

    Args:
        tables: what `read_file` returned.
        environment: normally `os.environ`; a stage may be there by its variables alone.

    Returns:
        The stages by name: the default ones first, then the others as they are written down.

    Raises:
        ConfigurationError: with every fault, one a line, each naming its key.
    """
    found = {name: StageEntry(name, kind=name, target=None, section=name) for name in DEFAULT_STAGES}
    faults: list[str] = []
    for name, table in section_values(STAGES, tables=tables, environment=environment).items():
        section = f"{STAGES}.{name}"
        if wrong := list(_faults(name, section, table)):
            faults += wrong
        else:
            found[name] = StageEntry(name, table["kind"], table.get("target"), section)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return found


def _faults(name: str, section: str, table: object) -> Iterator[str]:
    if name in _TAKEN:
        yield f"{section}: is the name of another server; its keys belong into [{name}]"
        return
    if not _NAME.fullmatch(name):
        yield f"{section}: a name is small letters, digits and single underscores, a letter first"
    if not isinstance(table, Mapping):
        yield f"{section}: must be a table of keys"
        return
    kind, target = (table.get(key) for key in OF_THE_STAGE)
    if kind not in STAGE_KINDS:
        what = "missing" if kind is None else f"no kind of stage is called {kind!r}"
        yield f"{section}.kind: {what}; known are {', '.join(STAGE_KINDS)}"
    if target is not None and (not isinstance(target, str) or not target):
        yield f"{section}.target: must be an address, such as dns:///host:50052"
