"""Sluiceway as `sluiceway up` runs it, over gRPC: the checkout whose Python runs this, which may be an older one.

python read_sluiceway.py '{"variables": {"SLUICEWAY_DETECTION__MODEL": "text-nano"}, "words": false}'
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from protocol import serve

from sluiceway import AsyncClient

try:
    from sluiceway_cluster import Cluster, plan_cluster
except ImportError:  # as earlier versions had it
    from sluiceway.cluster import Cluster, plan_cluster  # type: ignore[no-redef]


def _answer(result: Any) -> dict[str, Any]:
    result.raise_for_error()
    # A checkout that knows no lines gives its regions in reading order.
    lines = getattr(result, "line_texts", None) or [region.text for region in result.regions if region.text]
    words = [[word.text, list(word.box)] for region in result.regions for word in getattr(region, "words", ())]
    notices = [notice.reason for notice in getattr(result, "notices", ())]
    return {"lines": lines, "words": words, "notices": notices}


def main() -> None:
    """Start the cluster, and read what is asked for."""
    options = json.loads(sys.argv[1])
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=options["variables"])
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> AsyncClient:
            await stack.enter_async_context(Cluster(plan.servers))
            return await stack.enter_async_context(AsyncClient(plan.address))

        client = runner.run(start())

        def read(path: str, again: bool) -> dict[str, Any]:
            wanted = {"words": True} if options["words"] and not again else {}
            return _answer(runner.run(client.process(path, **wanted)))

        try:
            serve(read)
        finally:
            runner.run(stack.aclose())


if __name__ == "__main__":
    main()
