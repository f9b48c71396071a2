"""Runs inside a cluster, from the orchestrator's image: one client process of the library, which asks and asks.

`python cluster_calls.py ADDRESS`: it asks for the cluster's description until /tmp/stop exists, a few at a time, and
prints a JSON line every second, {"answered", "failed"}, what came of all calls so far.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from sluiceway.client import AsyncClient
from sluiceway.errors import SluicewayError

STOP = Path("/tmp/stop")
AT_A_TIME = 3


async def main() -> None:
    answered = failed = 0
    async with AsyncClient(sys.argv[1]) as client:

        async def ask() -> None:
            nonlocal answered, failed
            while not STOP.exists():
                try:
                    await client.describe()
                    answered += 1
                except SluicewayError as error:
                    print(error, file=sys.stderr)
                    failed += 1
                # Not to take the machine from those that answer.
                await asyncio.sleep(0.05)

        async def tell() -> None:
            while True:
                await asyncio.sleep(1)
                print(json.dumps({"answered": answered, "failed": failed}), flush=True)

        telling = asyncio.create_task(tell())
        await asyncio.gather(*(ask() for _ in range(AT_A_TIME)))
        telling.cancel()
    print(json.dumps({"answered": answered, "failed": failed}), flush=True)


asyncio.run(main())
