"""A server with a scripted service, and a connection to it."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from scripted_service import CONFIG, Scripted
from sluiceway_runtime.server.app import Server


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
async def server(service: Scripted) -> AsyncIterator[Server]:
    server = Server(service, CONFIG)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel
