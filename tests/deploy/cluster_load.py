"""Runs inside a cluster, from the orchestrator's image: steady load on the orchestrator, and a ledger of it on stdout.

`python cluster_load.py ADDRESS IMAGE CLIENTS`: each client sends the next image when the last one is done, until
/tmp/stop exists. A JSON line every second, {"done", "failed", "rate"}; the last one has the failures themselves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from sluiceway.client import AsyncClient
from sluiceway.errors import SluicewayError

STOP = Path("/tmp/stop")
REQUEST_TIMEOUT_S = 60.0


async def main() -> None:
    address, image, clients = sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
    done = 0
    failures: list[str] = []

    async def send() -> None:
        nonlocal done
        # As applications use it: with the client's own retries of what was not begun.
        async with AsyncClient(address) as client:
            while not STOP.exists():
                try:
                    await client.process(image, timeout_s=REQUEST_TIMEOUT_S)
                    done += 1
                except SluicewayError as error:
                    failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
                    await asyncio.sleep(0.2)

    async def tell() -> None:
        last, moment = 0, time.monotonic()
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            line = {"done": done, "failed": len(failures), "rate": round((done - last) / (now - moment), 2)}
            print(json.dumps(line), flush=True)
            last, moment = done, now

    telling = asyncio.create_task(tell())
    await asyncio.gather(*(send() for _ in range(clients)))
    telling.cancel()
    print(json.dumps({"done": done, "failed": len(failures), "failures": failures}), flush=True)


asyncio.run(main())
