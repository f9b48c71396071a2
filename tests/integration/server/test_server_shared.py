"""A server that takes the place of another under the same ports, and one that is not meant to."""

from __future__ import annotations

import asyncio

import aiohttp
import grpc.aio
import pytest
from scripted_service import CONFIG, Scripted
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.listening import SharedPorts

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc

CONNECTIONS = 24


def answering(width: int) -> Scripted:
    """A service that is known by the width that it answers with."""
    service = Scripted()

    async def detect(_context: object) -> detection_pb2.DetectResponse:
        return detection_pb2.DetectResponse(width=width)

    service.detect = detect
    return service


async def who_answers(ports: SharedPorts) -> tuple[set[int], set[int]]:
    """Of many connections: the widths of the answers, and what the operations port says."""
    widths, codes = set(), set()
    for _ in range(CONNECTIONS):
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.port}", options=options) as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            widths.add((await stub.Detect(detection_pb2.DetectRequest(), timeout=20)).width)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{ports.operations_port}/readyz") as answer,
        ):
            codes.add(answer.status)
    return widths, codes


@pytest.fixture
def ports() -> SharedPorts:
    from ports import free_ports

    return SharedPorts(*free_ports(2))


async def test_the_next_server_answers_where_the_one_before_it_did(ports: SharedPorts) -> None:
    config = ServerConfig.model_validate(
        CONFIG.model_dump() | {"port": ports.port, "operations_port": ports.operations_port}
    )
    old, service = Server(answering(1), config, shared=ports), answering(2)
    new = Server(service, CONFIG, shared=ports)
    await old.start()
    assert (old.port, old.operations_port) == (ports.port, ports.operations_port)
    loads, may_end = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        loads.set()
        await may_end.wait()

    service.starting = load
    starting = asyncio.create_task(new.start())
    await loads.wait()
    # Nobody meets one that cannot serve yet, but for whoever knows it by a port of its own.
    assert await who_answers(ports) == ({1}, {200})
    assert new.operations_port not in (0, ports.operations_port)
    may_end.set()
    await starting
    widths, codes = await who_answers(ports)
    assert widths <= {1, 2}
    assert codes == {200}
    assert await old.stop() is True
    assert await who_answers(ports) == ({2}, {200})
    # Any other still hears that the port is taken.
    third = Server(answering(3), config)
    with pytest.raises(StartupError, match="cannot listen"):
        await third.start()
    await third.close()
    await new.stop()
