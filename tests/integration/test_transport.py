"""Channels between servers: what they notice by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from sluiceway_runtime.calling import channel as calling
from wires import wire

METHOD = "/some.Service/Method"


async def test_a_server_whose_machine_vanished_amid_its_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a ping that measures the connection is under way, and gRPC sends no other before that is given up."""
    monkeypatch.setattr(calling, "KEEPALIVE_INTERVAL_MS", 500)
    monkeypatch.setattr(calling, "KEEPALIVE_TIMEOUT_MS", 500)

    async def answer(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**16)

    server = grpc.aio.server()
    handlers = {"Method": grpc.unary_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    cut = asyncio.Event()
    try:
        async with wire(f"127.0.0.1:{port}", cut) as address, calling.open_channel(address) as channel:
            call = channel.unary_stream(METHOD)(b"")
            for _ in range(100):
                await call.read()
            cut.set()
            # Left to itself gRPC takes a minute.
            assert await asyncio.wait_for(call.code(), 30) is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)
