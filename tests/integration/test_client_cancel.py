"""Giving up one source of many: its work ends in the stages, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from waiting import until

from sluiceway import errors
from sluiceway.client import AsyncClient, Client, Result

SLOW = 3


class Held:
    """Detectors that hold back one picture."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.detector = FakeDetection(before=self._before)

    async def _before(self, number: int) -> None:
        if number == SLOW:
            self.arrived.set()
            await self.release.wait()


@pytest.fixture
async def held() -> Held:
    return Held()


@pytest.fixture
async def cluster(held: Held) -> AsyncIterator[Cluster]:
    async with Cluster([held.detector], [FakeRecognition()]) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as made:
        yield made


def pictures(count: int) -> list[bytes]:
    return [picture(number) for number in range(count)]


def outcomes(results: list[Result]) -> list[str]:
    return [result.text.splitlines()[-1] if result.ok else type(result.error).__name__ for result in results]


EXPECTED = ["0:0", "1:0", "2:0", "Cancelled", "4:0", "5:0"]


async def test_a_source_that_is_worked_on(client: AsyncClient, held: Held) -> None:
    results = client.process_many(pictures(6))
    async with asyncio.timeout(30), aclosing(results):
        found = [await anext(results) for _ in range(SLOW)]
        await held.arrived.wait()
        results.cancel(SLOW)
        results.cancel(SLOW)
        found += [result async for result in results]
    assert outcomes(found) == EXPECTED
    error = found[SLOW].error
    assert isinstance(error, errors.Cancelled)
    assert (error.code, error.reason) == ("CANCELLED", "CANCELLED")
    await until(lambda: held.detector.cancelled == 1)


async def test_the_others_come_while_it_waits(client: AsyncClient, held: Held) -> None:
    """Unordered, so that nothing waits for its turn."""
    results = client.process_many(pictures(6), ordered=False)
    async with asyncio.timeout(30), aclosing(results):
        found = [await anext(results) for _ in range(5)]
        assert all(result.ok for result in found)
        results.cancel(SLOW)
        assert isinstance((await anext(results)).error, errors.Cancelled)
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_sources_that_are_not_there_yet(client: AsyncClient, held: Held) -> None:
    """Before anything has begun, and behind a window that is full."""
    results = client.process_many(pictures(6), in_flight=1)
    results.cancel(SLOW)
    results.cancel(5)
    async with asyncio.timeout(30):
        assert outcomes([result async for result in results]) == [*EXPECTED[:5], "Cancelled"]
    assert held.detector.seen[SLOW] == held.detector.seen[5] == 0, "nobody was asked"


async def test_what_has_ended_or_never_was_stays_as_it_is(client: AsyncClient) -> None:
    results = client.process_many(pictures(3))
    async with asyncio.timeout(30):
        found = [await anext(results)]
        for index in (0, 99, -1):
            results.cancel(index)
        found += [result async for result in results]
    assert outcomes(found) == EXPECTED[:3]


async def test_a_source_that_is_cancelled_is_not_sent_again_after_a_break(cluster: Cluster, held: Held) -> None:
    async with AsyncClient(f"127.0.0.1:{cluster.server.port}") as client:
        results = client.process_many(pictures(6), ordered=False)
        async with asyncio.timeout(60), aclosing(results):
            found = [await anext(results) for _ in range(5)]
            await cluster.server.stop()
            results.cancel(SLOW)
            # Nobody is there to hear it; it ends all the same.
            last = await anext(results)
    assert isinstance(last.error, errors.Cancelled | errors.Unavailable)
    assert len(found) == 5
    assert held.detector.seen[SLOW] == 1


async def test_from_another_thread(cluster: Cluster, held: Held) -> None:
    loop = asyncio.get_running_loop()

    def work() -> list[Result]:
        with Client(f"127.0.0.1:{cluster.server.port}") as client:
            results = client.process_many(pictures(6))

            def give_up() -> None:
                results.cancel(SLOW)

            watching = asyncio.run_coroutine_threadsafe(wait_and_cancel(give_up), loop)
            found = list(results)
            watching.result(30)
            return found

    async def wait_and_cancel(give_up: object) -> None:
        await held.arrived.wait()
        assert callable(give_up)
        await asyncio.to_thread(give_up)

    assert outcomes(await asyncio.to_thread(work)) == EXPECTED
