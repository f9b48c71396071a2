"""Starting the cluster of this machine for `up` and `run`, with a display."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sluiceway_cluster.commands.models import pull_missing
from sluiceway.cli.requirements import require_servers
from sluiceway.cli.terminal import ServerDisplay, errors

if TYPE_CHECKING:
    from sluiceway_cluster import Cluster, ClusterPlan, ServerState

__all__ = ["embedded_cluster", "plan_and_pull", "stop_on_signals"]


def plan_and_pull(what: str, config: Path | None, *, free_ports: bool) -> ClusterPlan:
    """Check the configuration and bring in the weights, before anything starts."""
    require_servers(what)
    from sluiceway_cluster import plan_cluster  # noqa: PLC0415 - not there in a client-only installation

    plan = plan_cluster(config, os.environ, free_ports=free_ports)
    if plan.auto_pull:
        pull_missing(plan.weights)
    return plan


@asynccontextmanager
async def embedded_cluster(plan: ClusterPlan, *, show_logs: bool) -> AsyncIterator[Cluster]:
    """Run the servers of a plan; they are ready inside, and gone after.

    From the start of the first, SIGINT and SIGTERM cancel the task that is inside, and a second one kills the servers.
    """
    from sluiceway_cluster import Cluster  # noqa: PLC0415

    display = ServerDisplay()

    def show(state: ServerState) -> None:
        display.show(state.name, state.state, state.detail)

    def log(name: str, line: str) -> None:
        if show_logs:
            errors.print(f"{name:<13} {line}", markup=False, soft_wrap=True, style="dim")

    cluster = Cluster(plan.servers, on_state=show, on_log=log)
    stop_on_signals(cluster)
    with display:
        await _start(cluster)
    try:
        yield cluster
    finally:
        await cluster.stop()


async def _start(cluster: Cluster) -> None:
    try:
        await cluster.start()
    except BaseException:
        await cluster.stop()
        raise


def stop_on_signals(cluster: Cluster | None = None) -> None:
    """Let SIGINT and SIGTERM cancel this task; a second one kills the cluster's servers."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked and cluster:
            # Without cancelling again: that would end the stopping itself and leave servers behind.
            cluster.kill()
        else:
            task.cancel()
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
