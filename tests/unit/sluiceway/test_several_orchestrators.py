"""Calls of one client spread over the orchestrators of its address; one that is gone is passed over."""

from __future__ import annotations

from typing import Any

from sluiceway.client import AsyncClient


async def test_each_of_two_orchestrators_gets_its_share(server: Any, second_server: Any) -> None:
    async with AsyncClient(f"{server.address},{second_server.address}") as client:
        # Whoever is connected first takes what comes before the other one is.
        while not second_server.fake.requests or not server.fake.requests:
            await client.process(b"words")
        before = len(server.fake.requests), len(second_server.fake.requests)
        for _ in range(40):
            assert (await client.process(b"words")).ok
    shares = len(server.fake.requests) - before[0], len(second_server.fake.requests) - before[1]
    assert sum(shares) == 40
    assert min(shares) >= 16


async def test_an_orchestrator_that_is_not_there_costs_nobody_a_call(server: Any) -> None:
    # Nobody listens on the port of the discard protocol.
    async with AsyncClient(f"127.0.0.1:9,{server.address}") as client:
        for _ in range(10):
            assert (await client.process(b"words")).ok
    assert len(server.fake.requests) == 10
