"""What surrounds a call, however it ends: what is counted, and what its client is told."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from raw_service import SERVICE, serve_methods
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import InvalidOption, Unavailable
from sluiceway_runtime.metrics.calls import CallMetrics
from sluiceway_runtime.server.door import Door
from sluiceway_runtime.server.interceptor import CallInterceptor
from sluiceway_runtime.server.lifecycle import Lifecycle, State
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error, names_itself
from waiting import until


class Context:
    """Of a call without metadata."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, metadata: Any) -> None:
        pass


async def stumbling(_request: Any, _context: Any) -> AsyncIterator[str]:
    """Raises as it is closed."""
    try:
        yield "first"
    finally:
        raise ValueError("while tidying up")


@pytest.fixture
def interceptor() -> CallInterceptor:
    """Of a server that is ready."""
    lifecycle = Lifecycle()
    for state in (State.STARTING, State.READY):
        lifecycle.to(state)
    door = Door(lifecycle, Security(), MemoryBudget(2**30), ServerConfig(port=0, operations_port=0))
    return CallInterceptor(door, CallMetrics(CollectorRegistry()))


@asynccontextmanager
async def calling(interceptor: CallInterceptor, methods: Mapping[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
    """To a server whose calls it surrounds."""
    async with (
        serve_methods(methods, interceptors=[interceptor]) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel


@pytest.mark.parametrize("letter", ["x", "中"])
async def test_what_is_wrong_with_a_long_text_is_told_as_with_a_short_one(
    interceptor: CallInterceptor, letter: str
) -> None:
    """A client that gets more than 16 KiB of trailers sees RESOURCE_EXHAUSTED instead, and would try again."""

    async def refuse(request: bytes, _context: Any) -> bytes:
        raise InvalidOption(f"no {request.decode()}", metadata={"name": request.decode(), "known": "a, b"})

    methods = {"Y": grpc.unary_unary_rpc_method_handler(refuse)}
    async with calling(interceptor, methods) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/Y")((letter * 100_000).encode(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidOption)
    assert error.message == caught.value.details()
    assert error.message.startswith(f"no {letter}")
    assert error.metadata["known"] == "a, b"


async def test_a_stream_that_cannot_be_closed_counts_as_ended_all_the_same(interceptor: CallInterceptor) -> None:
    async def handler(_: object) -> Any:
        return grpc.unary_stream_rpc_method_handler(stumbling)

    class Details:
        method = "/sluiceway.X/Y"
        invocation_metadata = (("sluiceway-request-bytes", "0"),)

    wrapped = await interceptor.intercept_service(handler, Details())
    answers = wrapped.unary_stream(None, Context())
    assert await anext(answers) == "first"
    assert interceptor.running == 1
    with pytest.raises(ValueError, match="tidying"):
        await answers.aclose()
    assert interceptor.running == 0


@pytest.mark.parametrize("streams", [False, True])
async def test_what_a_call_waits_for_is_cancelled_and_its_client_may_try_again(
    interceptor: CallInterceptor, caplog: pytest.LogCaptureFixture, *, streams: bool
) -> None:
    """Let out, that would end the call as CANCELLED, as if its client had given it up."""

    async def wait() -> None:
        below = asyncio.get_running_loop().create_future()
        below.cancel()
        await below

    async def answer(_request: bytes, _context: Any) -> bytes:
        await wait()
        return b""

    async def answers(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await wait()

    methods = {
        "One": grpc.unary_unary_rpc_method_handler(answer),
        "More": grpc.unary_stream_rpc_method_handler(answers),
    }
    async with calling(interceptor, methods) as channel:
        if streams:
            call = channel.unary_stream(f"/{SERVICE}/More")(b"", timeout=30)
            assert await call.read() == b"first"
            end = call.read()
        else:
            end = channel.unary_unary(f"/{SERVICE}/One")(b"", timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await end
    assert isinstance(from_rpc_error(caught.value), Unavailable)
    assert names_itself(caught.value)
    assert "waited for what was cancelled" in caplog.text


class Message:
    """A request that can be looked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.mark.parametrize("end", ["answered", "refused", "cancelled"])
@pytest.mark.parametrize("streams", [False, True])
async def test_the_request_of_a_call_that_is_over_is_gone_without_a_search_for_garbage(
    interceptor: CallInterceptor, end: str, *, streams: bool
) -> None:
    begun = asyncio.Event()

    async def work(request: Message) -> bytes:
        begun.set()
        if end == "refused":
            raise InvalidOption("no")
        if end == "cancelled":
            await asyncio.Event().wait()
        return request.data

    async def answer(request: Message, _context: Any) -> bytes:
        return await work(request)

    async def stream(request: Message, _context: Any) -> AsyncIterator[bytes]:
        yield await work(request)

    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    handler: Any = make(stream if streams else answer, request_deserializer=Message)  # type: ignore[operator]
    async with calling(interceptor, {"Y": handler}) as channel:
        gc.collect()
        gc.disable()
        try:
            method: Any = channel.unary_stream if streams else channel.unary_unary
            call: Any = method(f"/{SERVICE}/Y")(b"x", timeout=30)
            async with asyncio.timeout(30):
                await begun.wait()
                if end == "cancelled":
                    call.cancel()
                elif end == "answered":
                    assert await (call.read() if streams else call) == b"x"
                await call.code()
            await until(lambda: not any(isinstance(found, Message) for found in gc.get_objects()))
        finally:
            gc.enable()
