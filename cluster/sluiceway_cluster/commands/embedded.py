"""Starting the cluster of this machine for `up` and `run`, with a display."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sluiceway.cli.embedded import Changes
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.signals import stop_on_signals
from sluiceway.cli.terminal import ServerDisplay, errors
from sluiceway_cluster.commands.models import pull_missing

if TYPE_CHECKING:
    from sluiceway_cluster import Cluster, ClusterPlan, ServerState

__all__ = ["PlannedCluster", "embedded_cluster", "plan_and_pull", "plan_for_run"]

logger = logging.getLogger(__name__)


def plan_and_pull(
    what: str, config: Path | None, changes: Changes, *, free_ports: bool, scale: Sequence[str] = ()
) -> ClusterPlan:
    """Check the configuration and bring in the weights, before anything starts."""
    require_servers(what)
    from sluiceway_cluster import plan_cluster  # noqa: PLC0415 - not there in a client-only installation
    from sluiceway_cluster.commands.changes import as_variables  # noqa: PLC0415

    overrides = as_variables(changes, config, os.environ)
    plan = plan_cluster(config, os.environ, free_ports=free_ports, overrides=overrides, scale=scale)
    if plan.auto_pull:
        pull_missing(plan.weights)
    return plan


@dataclass(frozen=True)
class PlannedCluster:
    """What `run` knows of its cluster: a `sluiceway.cli.embedded.EmbeddedCluster`."""

    plan: ClusterPlan

    @property
    def address(self) -> str:
        """Of the orchestrator, once it runs."""
        return self.plan.address

    @property
    def encrypted(self) -> bool:
        """Whether its servers show certificates."""
        return self.plan.encrypted

    @property
    def ca(self) -> Path | None:
        """The authorities that signed those."""
        return self.plan.ca

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Names of its pipelines."""
        return tuple(pipeline.name for pipeline in self.plan.pipelines)

    def running(self, *, show_logs: bool) -> AbstractAsyncContextManager[object]:
        """Run its servers: ready inside, gone after, and one that dies is started again."""
        return _watched(self.plan, show_logs=show_logs)


def plan_for_run(config: Path | None, changes: Changes) -> PlannedCluster:
    """The entry point `sluiceway.embedded`: a cluster on ports that are free, beside any other."""
    return PlannedCluster(plan_and_pull("run without --address", config, changes, free_ports=True))


@asynccontextmanager
async def _watched(plan: ClusterPlan, *, show_logs: bool) -> AsyncIterator[Cluster]:
    async with embedded_cluster(plan, show_logs=show_logs) as cluster:
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(cluster.watch())
                yield cluster
                watching.cancel()
        except ExceptionGroup as faults:
            # Of what is inside, or of a server that died too often.
            raise faults.exceptions[0] from None


@asynccontextmanager
async def embedded_cluster(plan: ClusterPlan, *, show_logs: bool) -> AsyncIterator[Cluster]:
    """Run the servers of a plan; they are ready inside, and gone after.

    From the start of the first, SIGINT and SIGTERM cancel the task that is inside, and a second one kills the servers.
    """
    from sluiceway_cluster import Cluster  # noqa: PLC0415

    display = _LoggedStates() if plan.json_logs else ServerDisplay()

    def show(state: ServerState) -> None:
        display.show(state.name, state.state, state.detail)

    def log(name: str, line: str) -> None:
        if not show_logs:
            return
        if plan.json_logs:
            # As the server wrote it, for whatever reads it: it says itself of whom it is.
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the log goes there
        else:
            errors.print(f"{name:<13} {line}", markup=False, soft_wrap=True, style="dim")

    cluster = Cluster(plan.servers, on_state=show, on_log=log)
    stop_on_signals(cluster.kill)
    with display:
        await _start(cluster)
    try:
        yield cluster
    finally:
        await cluster.stop()


class _LoggedStates:
    """What `ServerDisplay` shows, as lines of the log."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was drawn."""

    def show(self, name: str, state: str, detail: str) -> None:
        """Tell that a server is in a state; while it starts its own log says more."""
        if state != "starting":
            logger.info("%s", ": ".join(filter(None, (f"{name} is {state}", detail))))


async def _start(cluster: Cluster) -> None:
    try:
        await cluster.start()
    except BaseException:
        await cluster.stop()
        raise
