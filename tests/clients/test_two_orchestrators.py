"""Two orchestrators by a list of addresses: one client process of the library and one of grpc-js share their calls."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from sluiceway_orchestrator.testing import Cluster

from tests.clients.conftest import CLIENTS, build

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

CALLS = 300
LEAST = 0.4
SPREAD = Path(__file__).parents[1] / "deploy" / "clients" / "spread.mjs"
DESCRIBED = re.compile(
    r'^rpc_server_call_duration_seconds_count\{[^}]*PipelineService/Describe"[^}]*\} (\S+)$', re.MULTILINE
)
# A process of its own: asks so often, and prints how many calls failed.
LIBRARY = """
import sys
from sluiceway.client import Client
with Client(sys.argv[1]) as client:
    for _ in range(int(sys.argv[2])):
        client.describe()
print(0)
"""


def described(cluster: Cluster) -> float:
    return sum(map(float, DESCRIBED.findall(generate_latest(cluster.server.registry).decode())))


async def failures(*command: str) -> int:
    """Run one client to its end."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return int(json.loads(output))


@pytest.mark.parametrize("client", ["library", "grpc-js"])
async def test_neither_of_two_gets_less_than_its_part(client: str) -> None:
    if client == "grpc-js":
        # Where Node finds what the TypeScript client was built with.
        await asyncio.to_thread(build, "typescript")
        script = shutil.copy(SPREAD, CLIENTS / "typescript" / "dist")
    async with Cluster() as one, Cluster() as other:
        addresses = ",".join(f"127.0.0.1:{cluster.server.port}" for cluster in (one, other))
        if client == "grpc-js":
            failed = await failures("node", str(script), f"ipv4:{addresses}", str(CALLS))
        else:
            failed = await failures(sys.executable, "-c", LIBRARY, addresses, str(CALLS))
        counts = [described(one), described(other)]
    print(f"{client}: {counts[0] / CALLS:.0%} and {counts[1] / CALLS:.0%} of {CALLS} calls")
    assert failed == 0
    assert sum(counts) == CALLS
    assert min(counts) >= LEAST * CALLS
