"""Where the stages of this machine are, in files that its orchestrators look into again and again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from sluiceway_cluster.placement import ORCHESTRATOR
from sluiceway_cluster.process import ServerSpec
from sluiceway_cluster.scaling import service_of

__all__ = ["AddressFiles"]


class AddressFiles:
    """A file for each stage that orchestrators are told of, from entering to leaving.

    Args:
        told: by stage, the variable that tells orchestrators where it is, and what it says at first.
    """

    def __init__(self, told: Mapping[str, tuple[str, str]]) -> None:
        self._told = told
        self._folder = tempfile.TemporaryDirectory(prefix="sluiceway-up-")

    def __enter__(self) -> Self:
        for stage, (_, target) in self._told.items():
            self.write(stage, target.split(","))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def stages(self) -> frozenset[str]:
        """Those that there is a file for; where others are, orchestrators know from the configuration."""
        return frozenset(self._told)

    def looked_into(self, specs: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
        """Have the orchestrators among some servers look into these files."""
        files = {variable: f"file:{self._file(stage)}" for stage, (variable, _) in self._told.items()}
        return tuple(
            replace(spec, environment={**spec.environment, **files}) if service_of(spec.name) == ORCHESTRATOR else spec
            for spec in specs
        )

    def write(self, stage: str, addresses: Iterable[str]) -> None:
        """Say where a stage is. Whoever reads finds what was there before, or this."""
        file = self._file(stage)
        draft = file.with_suffix(".draft")
        draft.write_text("".join(f"{address}\n" for address in addresses))
        draft.replace(file)

    def _file(self, stage: str) -> Path:
        return Path(self._folder.name) / stage
