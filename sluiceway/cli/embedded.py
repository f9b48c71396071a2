"""The cluster that `run` starts for itself, found by entry point: the client knows no server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

from sluiceway.cli.requirements import missing_servers, require_servers

__all__ = ["Changes", "EmbeddedCluster", "find_embedded"]

# One entry point: a callable that takes the configuration file, or None, and Changes, and returns an EmbeddedCluster.
GROUP = "sluiceway.embedded"


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command line changes of the configuration.

    Attributes:
        settings: each `section.key=value`.
        models: names of weights, or the path of a detector's file.
        workers: of every stage.
    """

    settings: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    workers: int | None = None

    def __bool__(self) -> bool:
        return self != Changes()


class EmbeddedCluster(Protocol):
    """A cluster that is planned, its weights here, and not yet started."""

    @property
    def address(self) -> str:
        """Of the orchestrator, once it runs."""

    @property
    def encrypted(self) -> bool:
        """Whether its servers show certificates."""

    @property
    def ca(self) -> Path | None:
        """The authorities that signed those."""

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Names of its pipelines."""
        ...

    def running(self, *, show_logs: bool) -> AbstractAsyncContextManager[object]:
        """Run its servers: ready inside, gone after. SIGINT and SIGTERM cancel the task that is inside."""


def find_embedded(what: str, config: Path | None, changes: Changes) -> EmbeddedCluster:
    """Plan the cluster of this machine and bring in what it needs; ends the command where no server is installed.

    Args:
        what: the command that asks, for people.
        config: configuration file; None takes `sluiceway.toml` of the working directory if there is one.
        changes: to the configuration.
    """
    require_servers(what)
    found = next(iter(metadata.entry_points(group=GROUP)), None)
    if found is None:
        missing_servers(what, "its cluster")
    return cast("EmbeddedCluster", found.load()(config, changes))
