"""Runs inside a cluster, from the orchestrator's image: steady load on the orchestrator, and a ledger of it on stdout.

`python cluster_load.py ADDRESS IMAGE CLIENTS`: each client sends the next image when the last one is done, until
/tmp/stop exists. An answer in which regions or texts are missing has failed as well. A JSON line every second, {"done",
"failed", "rate"}; the last one has the failures themselves, how many answers each version of each model had a part in,
and what numbers of regions those had. If there is /tmp/ca.pem, the connection is encrypted, and /tmp/token is shown.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from sluiceway.client import AsyncClient, Tls
from sluiceway.errors import SluicewayError

STOP = Path("/tmp/stop")
CA, TOKEN = Path("/tmp/ca.pem"), Path("/tmp/token")
REQUEST_TIMEOUT_S = 60.0


async def main() -> None:
    address, image, clients = sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
    done = 0
    failures: list[str] = []
    versions: Counter[str] = Counter()
    regions: dict[str, set[int]] = {}
    tls = Tls(ca=CA) if CA.exists() else None
    token = TOKEN.read_text() if TOKEN.exists() else None

    async def send() -> None:
        nonlocal done
        # As applications use it: with the client's own retries of what was not begun.
        async with AsyncClient(address, tls=tls, token=token) as client:
            while not STOP.exists():
                try:
                    result = await client.process(image, timeout_s=REQUEST_TIMEOUT_S)
                    done += 1
                    for name in (f"{model.name} {model.version}" for model in result.models):
                        versions[name] += 1
                        regions.setdefault(name, set()).add(len(result.regions))
                    # Regions of one version that reach a reader of another come back without a text.
                    unread = sum(region.text is None for region in result.regions)
                    if unread or not result.regions:
                        failures.append(f"{unread} of {len(result.regions)} regions without text")
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
    numbers = {name: sorted(found) for name, found in regions.items()}
    account = {"done": done, "failed": len(failures), "failures": failures, "versions": versions, "regions": numbers}
    print(json.dumps(account), flush=True)


asyncio.run(main())
