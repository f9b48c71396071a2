"""When all jobs have ended nothing is held for them any more, nowhere; and whoever is told to stop, stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sluiceway_simulation.cluster import Cluster

__all__ = ["check_ending"]

# For cancellations to come where they have to, over the slowest way.
QUIET_S = 5.0
# More than all grace times together.
STOP_S = 60.0


async def check_ending(cluster: Cluster) -> AsyncIterator[str]:
    """What is left after the last job, and after the cluster was stopped."""
    await asyncio.sleep(QUIET_S)
    for left in cluster.leftovers():
        yield f"after the last job: {left}"
    try:
        async with asyncio.timeout(STOP_S):
            await cluster.stop()
    except TimeoutError:
        yield f"the cluster has not stopped within {STOP_S:g} s"
        return
    for left in cluster.leftovers():
        yield f"after the end: {left}"
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            yield f"after the end: {task.get_name()} still runs"
