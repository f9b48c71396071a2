"""Several orchestrators behind one address, of which connections reach one by chance: a client spreads its calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from time import monotonic

import grpc.aio
import pytest
from one_address import OneAddress
from sluiceway_orchestrator.testing import Cluster, picture
from waiting import until

from sluiceway.client import AsyncClient, Client, RetryPolicy
from sluiceway.client.connection import Connection

# Of so many calls each orchestrator answers its part.
CALLS = 90
# It takes four seconds, and is to take no more than 30; a neighbour that computes may have as many again.
WITHIN_S = 55.0
# Who fails once has failed: nothing of what is shown here may hang on a second try.
ONCE = RetryPolicy(attempts=1)

Ask = Callable[[bytes], Awaitable[object]]


@asynccontextmanager
async def asynchronous(address: str) -> AsyncIterator[Ask]:
    async with AsyncClient(address, retry=ONCE) as client:
        yield client.process


@asynccontextmanager
async def blocking(address: str) -> AsyncIterator[Ask]:
    client = await asyncio.to_thread(Client, address, retry=ONCE)
    try:
        yield lambda image: asyncio.to_thread(client.process, image)
    finally:
        await asyncio.to_thread(client.close)


class Orchestrators:
    """Real ones, each before stages of its own, and what part of the calls each of them has answered."""

    def __init__(self, **options: object) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._numbers = count()
        self.running: list[Cluster] = []

    async def start(self) -> str:
        cluster = await self._stack.enter_async_context(Cluster(**self._options))  # type: ignore[arg-type]
        self.running.append(cluster)
        return f"127.0.0.1:{cluster.server.port}"

    async def close(self) -> None:
        await self._stack.aclose()

    async def shares(self, ask: Ask) -> list[float]:
        """What part of the next calls each of them answers."""
        before = [self._answered(cluster) for cluster in self.running]
        for _ in range(CALLS // 3):
            await asyncio.gather(*(ask(picture(next(self._numbers))) for _ in range(3)))
        counts = [self._answered(cluster) - begun for cluster, begun in zip(self.running, before, strict=True)]
        assert sum(counts) == CALLS
        return [counted / CALLS for counted in counts]

    @staticmethod
    def _answered(cluster: Cluster) -> int:
        return sum(server.stage.seen.total() for server in cluster.detection)


@pytest.fixture
async def orchestrators() -> AsyncIterator[Orchestrators]:
    running = Orchestrators()
    yield running
    await running.close()


def shown(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    begin_s = monotonic()
    yield
    took_s = monotonic() - begin_s
    print(f"{what} after {took_s:.1f} s")
    assert took_s < seconds


@pytest.mark.parametrize("client", [asynchronous, blocking])
async def test_each_of_three_answers_its_part_and_so_does_one_that_comes_later(
    client: Callable[[str], object], orchestrators: Orchestrators
) -> None:
    addresses = [await orchestrators.start() for _ in range(3)]
    async with OneAddress(*addresses) as behind, client(behind.address) as ask:  # type: ignore[attr-defined]
        with within(WITHIN_S, "three of three"):
            while not 0.2 <= min(shares := await orchestrators.shares(ask)) <= max(shares) <= 0.5:
                pass
        print(f"shares of three: {shown(shares)}")
        behind.servers.append(await orchestrators.start())
        with within(WITHIN_S, "the fourth"):
            while (shares := await orchestrators.shares(ask))[-1] < 0.15:
                pass
        print(f"shares of four: {shown(shares)}; {behind.made} connections were made, {behind.open} are open")
        # One for each, and one that looks.
        assert behind.open <= 5


async def test_one_that_leaves_costs_no_call_and_its_part_goes_to_the_others(orchestrators: Orchestrators) -> None:
    addresses = [await orchestrators.start() for _ in range(3)]
    async with OneAddress(*addresses) as behind, asynchronous(behind.address) as ask:
        while min(await orchestrators.shares(ask)) < 0.2:
            pass
        # As Kubernetes does it: no further connection leads there, and it ends those that it has.
        del behind.servers[0]
        await orchestrators.running[0].server.stop()
        shares = await orchestrators.shares(ask)
        assert shares[0] == 0
        while min((shares := await orchestrators.shares(ask))[1:]) < 0.4:
            pass
        print(f"shares of two that stayed: {shown(shares[1:])}")


async def test_connections_that_grow_old_are_made_anew_and_no_call_notices() -> None:
    orchestrators = Orchestrators(max_connection_age_s=0.3)
    try:
        addresses = [await orchestrators.start() for _ in range(2)]
        async with OneAddress(*addresses) as behind, asynchronous(behind.address) as ask:
            while behind.made < 20:
                await orchestrators.shares(ask)
            while min(await orchestrators.shares(ask)) < 0.25:
                pass
    finally:
        await orchestrators.close()


async def test_one_server_keeps_one_connection(orchestrators: Orchestrators) -> None:
    """Looking for others leaves nothing behind, and one call that is the only one is not followed by any look."""
    address = await orchestrators.start()
    async with OneAddress(address) as behind, asynchronous(behind.address) as ask:
        await ask(picture(0))
        assert behind.made == 1
        begin_s = monotonic()
        while behind.made < 3:
            await orchestrators.shares(ask)
        # At once with the second call, and then at times.
        assert monotonic() - begin_s > 1
        await until(lambda: behind.open <= 1)


async def test_each_of_a_list_is_found_with_the_first_calls(orchestrators: Orchestrators) -> None:
    addresses = [await orchestrators.start() for _ in range(3)]
    async with asynchronous(",".join(addresses)) as ask:
        await orchestrators.shares(ask)
        assert min(shares := await orchestrators.shares(ask)) > 0.3, shown(shares)


async def test_servers_are_known_by_the_ids_that_they_give(orchestrators: Orchestrators) -> None:
    """In the initial metadata of a health check, as the contract says; by it a restarted one is another one."""
    addresses = [await orchestrators.start() for _ in range(2)]
    ids = set()
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
            metadata = await call.initial_metadata()
            ids.add(dict(metadata)["sluiceway-server-id"])
            assert await call == b"\x08\x01"
    assert ids == {cluster.server.recorder.instance for cluster in orchestrators.running}
    async with OneAddress(*addresses) as behind:
        connection = Connection(behind.address, tls=None, token=None)
        try:
            async with asyncio.timeout(30):
                while set(connection.servers) != ids:
                    await connection.describe(10)
        finally:
            await connection.close()
