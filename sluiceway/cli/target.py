"""The cluster that a command works on: a running one by its address, or one that is started for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluiceway.cli.embedded import Changes, EmbeddedCluster, find_embedded
from sluiceway.cli.terminal import EXIT_USAGE, fail
from sluiceway.client import Tls

__all__ = ["Target", "find_target", "parse_params"]


@dataclass(frozen=True)
class Target:
    """Which cluster to use: a running one, or without an address one of its own, by plan."""

    address: str | None
    plan: EmbeddedCluster | None
    token: str | None
    tls: Tls | None
    show_logs: bool

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[str, Tls | None]]:
        """Give the address and how to encrypt; a cluster that is started here is stopped on leaving."""
        if self.address:
            yield self.address, self.tls
            return
        assert self.plan is not None
        async with self.plan.running(show_logs=self.show_logs):
            yield self.plan.address, self.tls or (Tls(ca=self.plan.ca) if self.plan.encrypted else None)


def find_target(
    command: str,
    address: str | None,
    config: Path | None,
    *,
    changes: Changes | None = None,
    pipeline: str | None,
    token: str | None,
    tls: Tls | None,
    show_logs: bool,
) -> Target:
    """Make a target of a command's options; without an address, plan a cluster and bring in what it needs.

    To be called before there is a loop, which would hear an interrupt only after the last download.
    """
    changes = changes or Changes()
    if address and (changes or config):
        fail(
            f"--config, --set, --model and --workers are for a cluster that is started here, and {address} is running "
            "(--address, or the variable SLUICEWAY_ADDRESS)",
            EXIT_USAGE,
        )
    plan = None if address else find_embedded(f"{command} without --address", config, changes)
    if plan is not None and pipeline is not None and pipeline not in plan.pipelines:
        known = ", ".join(plan.pipelines)
        fail(f"--pipeline: no pipeline is called {pipeline!r}; the configuration has {known}", EXIT_USAGE)
    return Target(address, plan, token, tls, show_logs)


def parse_params(arguments: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE, as often as it was given."""
    params = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            fail(f"--param is of the form KEY=VALUE, not {argument}", EXIT_USAGE)
        params[name] = value
    return params
