"""`python memory_probe.py orchestrator|stages ...`: an orchestrator whose memory is watched, and stages beside it.

Each runs in a process of its own, so that what one holds is not counted with another. Lines on standard output say
where they are and how much they hold; they end when standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, FakeServer
from sluiceway_runtime.server.memory import give_back_freed, held_bytes, keep_freed_memory


def say(**facts: object) -> None:
    """A line for whoever started this."""
    print(json.dumps(facts), flush=True)


async def _until_left() -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)


async def _never(*_: int) -> None:
    await asyncio.Event().wait()


async def _stages() -> None:
    servers = [FakeServer(FakeDetection()), FakeServer(FakeRecognition(before=_never, capacity=4))]
    say(detection=await servers[0].start(), recognition=await servers[1].start())
    await _until_left()
    for server in servers:
        await server.stop()


async def _orchestrator(options: dict[str, object]) -> None:
    async with Cluster(**({"detectors": [], "readers": []} | options)) as cluster:  # type: ignore[arg-type]
        begun = held_bytes()
        give_back_freed(cluster.server.budget)
        say(port=cluster.server.port, begun_bytes=begun)
        left = asyncio.create_task(_until_left())
        most = 0
        while not left.done():
            held = held_bytes() - begun
            most = max(most, held)
            service = cluster.service
            say(
                most_bytes=most,
                held_bytes=held,
                used_bytes=service.budget.used_bytes,
                jobs=service.status()["jobs"],
                at_s=time.monotonic(),
            )
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server whose memory is watched.")
    parser.add_argument("role", choices=("orchestrator", "stages"))
    parser.add_argument("options", nargs="?", type=json.loads, default={})
    arguments = parser.parse_args()
    # As every server of ours does.
    keep_freed_memory()
    asyncio.run(_stages() if arguments.role == "stages" else _orchestrator(arguments.options))
