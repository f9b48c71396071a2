"""What a stage's front holds in memory, whatever it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from sluiceway_runtime.config import StageConfig
from sluiceway_runtime.server.status import from_rpc_error

MIB = 2**20
# Beside its queue: a Python with gRPC, what is being read, and the margin of the budget.
MARGIN_BYTES = 256 * MIB
CALLS, SIZE_BYTES = 12, 60 * MIB
SERVER = """
import asyncio
import sys

import grpc
from sluiceway_runtime.config import StageConfig
from sluiceway_runtime.errors import QueueFull
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.memory import keep_freed_memory
from sluiceway_runtime.server.security import ClientConfig, Security, SecurityConfig

class Service:
    names = ("sluiceway.t.v1.T",)

    async def start(self):
        pass

    def register(self, server):
        async def refuse(request, context):
            raise QueueFull("the queue is full", retry_after_s=0.1)

        async def hold(request, context):
            await asyncio.sleep(2)
            return b""

        async def describe(request, context):
            return b""

        methods = {"Refuse": refuse, "Hold": hold, "Describe": describe}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.names[0], handlers),))

    def collectors(self, registry):
        pass

    def ready(self):
        return True

    def status(self):
        return {}

    def refuse(self):
        pass

    async def drain(self, grace_s):
        return True

    async def close(self):
        pass

async def main():
    keep_freed_memory()
    clients = {name: ClientConfig(token_sha256="ab" * 32) for name in sys.argv[1:]}
    config = StageConfig(port=0, operations_port=0, reflection=False)
    server = Server(Service(), config, Security(SecurityConfig(clients=clients)))
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close()

asyncio.run(main())
"""


@contextlib.contextmanager
def front(*clients: str) -> Iterator[tuple[int, int]]:
    """A stage's front in a process of its own, and its port. Anybody may call it if it knows no clients."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *clients], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def flood(port: int, method: str, *, declares: bool) -> Counter[str]:
    """Many large calls at once, each by a connection of its own: how they ended."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    data = bytes(SIZE_BYTES)
    metadata = (("sluiceway-request-bytes", str(len(data))),) if declares else ()

    async def one() -> str:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            try:
                await channel.unary_unary(f"/sluiceway.t.v1.T/{method}")(data, metadata=metadata, timeout=60)
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error).reason
            return "OK"

    return Counter(await asyncio.gather(*(one() for _ in range(CALLS))))


def assert_within_bound(pid: int, ends: Counter[str]) -> None:
    peak = peak_bytes(pid)
    print(f"{CALLS} calls of {SIZE_BYTES // MIB} MiB: {dict(ends)}, at most {peak // MIB} MiB")
    assert peak <= StageConfig(port=0, operations_port=0).queue_bytes + MARGIN_BYTES


@pytest.mark.parametrize("declares", [True, False], ids=["says its size", "does not"])
@pytest.mark.parametrize(
    ("method", "allowed"),
    [("Refuse", {"QUEUE_FULL"}), ("Hold", {"OK", "QUEUE_FULL"}), ("Describe", {"OK", "IMAGE_TOO_LARGE"})],
)
async def test_a_front_stays_within_its_queue_and_a_margin(method: str, allowed: set[str], declares: bool) -> None:
    with front() as (port, pid):
        ends = await flood(port, method, declares=declares)
        assert_within_bound(pid, ends)
    assert set(ends) <= allowed
    if method == "Hold":
        assert ends["OK"] >= 2, "it serves what it has room for"


@pytest.mark.parametrize("declares", [True, False], ids=["says its size", "does not"])
async def test_a_front_holds_little_of_strangers(declares: bool) -> None:
    with front("eye") as (port, pid):
        ends = await flood(port, "Hold", declares=declares)
        assert_within_bound(pid, ends)
    assert set(ends) == {"UNAUTHENTICATED"}
