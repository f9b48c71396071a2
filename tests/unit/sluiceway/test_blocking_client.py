"""The blocking client: the same behaviour from ordinary threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sluiceway import Client, errors
from sluiceway.client import JobDone, SourceFailed


async def test_process(server: Any) -> None:
    def work() -> list[str | None]:
        with Client(server.address) as client:
            return [region.text for region in client.process(b"hello").regions]

    assert await asyncio.to_thread(work) == ["hello", "world"]


async def test_errors_and_events(server: Any) -> None:
    def work() -> list[type]:
        with Client(server.address) as client:
            with pytest.raises(errors.InvalidImage):
                client.process(b"bad")
            return [type(event) for event in client.events(b"bad")]

    assert await asyncio.to_thread(work) == [SourceFailed, JobDone]


async def test_process_many_draws_from_a_blocking_iterable_on_one_thread(server: Any) -> None:
    threads: set[int] = set()

    def slow() -> Iterator[bytes]:
        for index in range(5):
            threads.add(threading.get_ident())
            time.sleep(0.02)
            yield str(index).encode()

    def work() -> list[str | None]:
        with Client(server.address) as client:
            return [result.regions[0].text for result in client.process_many(slow())]

    assert await asyncio.to_thread(work) == ["0", "1", "2", "3", "4"]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_many_threads_share_one_client(server: Any) -> None:
    def work() -> list[str | None]:
        with Client(server.address) as client, ThreadPoolExecutor(8) as pool:
            results = pool.map(lambda index: client.process(str(index).encode()), range(40))
            return [result.regions[0].text for result in results]

    assert await asyncio.to_thread(work) == [str(index) for index in range(40)]


async def test_leaving_a_loop_early_cancels_on_the_server(server: Any) -> None:
    def work() -> None:
        with Client(server.address) as client:
            events = client.events(b"hang")
            next(events)
            events.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(work)
    await asyncio.wait_for(server.fake.cancelled.wait(), 5)


async def test_close_ends_the_thread_and_may_be_repeated(server: Any) -> None:
    def work() -> None:
        client = Client(server.address)
        client.describe()
        names = [thread.name for thread in threading.enumerate()]
        assert "sluiceway-client" in names
        client.close()
        client.close()
        assert "sluiceway-client" not in [thread.name for thread in threading.enumerate()]

    await asyncio.to_thread(work)


async def test_a_forgotten_client_ends_its_thread(server: Any) -> None:
    def work() -> None:
        client = Client(server.address)
        client.describe()
        del client
        deadline = time.monotonic() + 5
        while any(thread.name == "sluiceway-client" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    await asyncio.to_thread(work)
