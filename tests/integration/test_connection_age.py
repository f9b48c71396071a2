"""Connections end after a while, so that clients look anew; no call notices."""

import asyncio

import grpc
import grpc.aio
from raw_service import SERVICE, serve_methods


async def test_an_old_connection_is_left_for_a_new_one_while_its_calls_go_on() -> None:
    peers: list[str] = []
    go_on = asyncio.Event()

    async def answer(_: bytes, context: grpc.aio.ServicerContext) -> bytes:  # type: ignore[type-arg]
        peers.append(context.peer())
        return b""

    async def stream(_: bytes, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        await context.write(b"first")
        await go_on.wait()
        await context.write(b"last")

    methods = {
        "Method": grpc.unary_unary_rpc_method_handler(answer),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    async with (
        serve_methods(methods, max_connection_age_s=0.2) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        long = channel.unary_stream(f"/{SERVICE}/Stream")(b"")
        assert await long.read() == b"first"
        call = channel.unary_unary(f"/{SERVICE}/Method")
        async with asyncio.timeout(30):
            # Not one of them fails.
            while len(set(peers)) < 3:
                await call(b"")
        go_on.set()
        assert await long.read() == b"last"
        assert await long.code() is grpc.StatusCode.OK
