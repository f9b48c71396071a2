"""What stands in for gRPC behaves as gRPC does where the cluster depends on it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from sluiceway_simulation.network.call import WINDOW_BYTES
from sluiceway_simulation.network.channel import INTERVAL_S, TIMEOUT_S
from sluiceway_simulation.network.network import Network
from sluiceway_simulation.network.server import MemoryServer
from sluiceway_simulation.network.wire import Wire
from sluiceway_simulation.virtual_time import Stuck, current_loop, simulate

ADDRESS = "10.0.0.1:1"


class Echo:
    """Answers after a while, or with as much as is asked for."""

    def __init__(self) -> None:
        self.cancelled = self.written = 0

    async def say(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(float(request))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"%.1f" % context.time_remaining()

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield bytes(1000)
            self.written += 1

    async def refuse(self, request: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("key", "value"),))


def on_a_network(test: Callable[[Network, MemoryServer, Echo, Any], Awaitable[None]]) -> None:
    async def main() -> None:
        network = Network(Wire(0.01, 0.0), random.Random(1), lambda _: None)
        server, echo = MemoryServer(), Echo()
        handlers = {
            "Say": grpc.unary_unary_rpc_method_handler(echo.say),
            "Stream": grpc.unary_stream_rpc_method_handler(echo.stream),
            "Refuse": grpc.unary_unary_rpc_method_handler(echo.refuse),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
        network.servers[ADDRESS] = server
        await server.start()
        await test(network, server, echo, network.dial(ADDRESS))

    simulate(main, seed=1)


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def test_a_call_takes_its_way_and_carries_its_deadline() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        begun_s = current_loop().time()
        assert await channel.unary_unary("/echo/Say")(b"1", timeout=5) == b"4.0"
        assert current_loop().time() - begun_s == pytest.approx(1.02, abs=0.001)

    on_a_network(test)


def test_a_deadline_ends_both_halves() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        code = await code_of(channel.unary_unary("/echo/Say")(b"9", timeout=1))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.sleep(0.1)
        assert echo.cancelled == 1

    on_a_network(test)


def test_leaving_cancels_the_server() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        asking = asyncio.ensure_future(channel.unary_unary("/echo/Say")(b"9"))
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.wait((asking,))
        await asyncio.sleep(0.1)
        assert asking.cancelled()
        assert echo.cancelled == 1

    on_a_network(test)


def test_what_ends_a_call_comes_with_its_last_message() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        before = network.weather.messages
        await channel.unary_unary("/echo/Say")(b"1", timeout=5)
        # The call, its request with the end of the requests, and the answer with the status.
        assert network.weather.messages - before == 3

    on_a_network(test)


def test_who_listens_hears_all_and_keeps_nobody_waiting() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        heard: list[int] = []
        status = await channel.unary_stream("/echo/Stream")(b"500").listen(lambda answer: heard.append(len(answer)))
        assert status.code is grpc.StatusCode.OK
        assert heard == [1000] * 500
        listening = asyncio.ensure_future(channel.unary_stream("/echo/Say")(b"9").listen(heard.append))
        await asyncio.sleep(1)
        listening.cancel()
        await asyncio.wait((listening,))
        await asyncio.sleep(0.1)
        assert echo.cancelled == 1

    on_a_network(test)


def test_an_error_comes_with_its_trailers() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/echo/Refuse")(b"")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        assert list(caught.value.trailing_metadata()) == [("key", "value")]
        assert await code_of(channel.unary_unary("/echo/Nothing")(b"")) is grpc.StatusCode.UNIMPLEMENTED

    on_a_network(test)


def test_a_server_waits_for_a_client_that_does_not_read() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        call = channel.unary_stream("/echo/Stream")(b"500")
        await asyncio.sleep(10)
        assert echo.written == WINDOW_BYTES // 1000
        assert [len(message) async for message in call] == [1000] * 500

    on_a_network(test)


def test_who_is_killed_breaks_its_calls_and_refuses_new_ones() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        asking = asyncio.ensure_future(channel.unary_unary("/echo/Say")(b"9"))
        await asyncio.sleep(1)
        server.break_off()
        assert await code_of(asking) is grpc.StatusCode.UNAVAILABLE
        assert await code_of(channel.unary_unary("/echo/Say")(b"0")) is grpc.StatusCode.UNAVAILABLE

    on_a_network(test)


def test_messages_into_a_cut_come_once_it_is_healed() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        begun_s = current_loop().time()
        network.weather.cut(ADDRESS)
        asking = asyncio.ensure_future(channel.unary_unary("/echo/Say")(b"1", timeout=30))
        await asyncio.sleep(5)
        network.weather.heal(ADDRESS)
        await asking
        assert current_loop().time() - begun_s == pytest.approx(6, abs=0.1)

    on_a_network(test)


def test_a_connection_without_calls_asks_nothing() -> None:
    async def main() -> None:
        network = Network(Wire(0.01, 0.0), random.Random(1))
        channel = network.dial(ADDRESS)
        assert await code_of(channel.unary_unary("/echo/Say")(b"1")) is grpc.StatusCode.UNAVAILABLE
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        simulate(main, seed=1)


def test_a_cut_is_noticed_by_keepalive() -> None:
    async def test(network: Network, server: MemoryServer, echo: Echo, channel: Any) -> None:
        begun_s = current_loop().time()
        asking = asyncio.ensure_future(channel.unary_unary("/echo/Say")(b"100"))
        await asyncio.sleep(1)
        network.weather.cut(ADDRESS)
        assert await code_of(asking) is grpc.StatusCode.UNAVAILABLE
        assert current_loop().time() - begun_s == pytest.approx(INTERVAL_S + TIMEOUT_S)

    on_a_network(test)
