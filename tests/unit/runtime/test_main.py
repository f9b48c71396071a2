"""A server's process, where the service is only a pretence."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SERVER = """
import asyncio, atexit, time
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server.main import run_service

class Config(ServerConfig):
    port: int = 0
    operations_port: int = 0

class Service:
    names = ()

    def __init__(self, config, installation):
        pass

    def register(self, server):
        pass

    def collectors(self, registry):
        pass

    def status(self):
        return {}

    async def start(self):
        thread = asyncio.create_task(asyncio.to_thread(time.sleep, 60))
        print("fetching", flush=True)
        if {waits}:
            await thread

    def ready(self):
        return True

    def refuse(self):
        pass

    async def drain(self, grace_s):
        return True

    async def close(self):
        print("closed", flush=True)

# Code of users may have something to do at the end.
atexit.register(print, "the end")
run_service("detection", Config, Service, [])
"""


@pytest.mark.parametrize("waits", [True, False], ids=["of its start", "of something else"])
def test_a_server_told_to_stop_waits_for_no_thread(waits: bool) -> None:
    """Weights are fetched in threads and names looked up, and nothing can interrupt that."""
    script = SERVER.replace("{waits}", str(waits))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "fetching\n"
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            assert server.stdout.read() == "closed\nthe end\n"
        finally:
            server.kill()
