"""Whoever waits at the door of a real server, or keeps it waiting, comes to an end."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest
from door_service import (
    MIB,
    ORCHESTRATOR,
    PREFIX,
    Held,
    call,
    counted,
    refusal,
    scrape,
    serving,
)
from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import (
    QueueFull,
    Unavailable,
)
from sluiceway_runtime.server.app import Server
from waiting import until


async def test_who_leaves_while_waiting_leaves_nothing_behind(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = orchestrator
    held = [call(channel, 10 * MIB) for _ in range(4)]
    await until(lambda: len(service.read) == 4)
    leaving = [call(channel, 10 * MIB, declared=said) for said in (10 * MIB, None) for _ in range(6)]
    # Of those that do not say their size, two have the places that there are and wait for their bytes.
    await until(lambda: server._interceptor.running == 4 + 12 and server.budget.waiting == 6 + 2)
    short = [call(channel, 10 * MIB, timeout=0.3) for _ in range(3)]
    for task in leaving:
        task.cancel()
    for task in short:
        with pytest.raises(grpc.aio.AioRpcError):
            await task
    await until(lambda: server._interceptor.running == 4 and server.budget.waiting == 0)
    assert server.budget.used_bytes == 40 * MIB
    service.go.set()
    assert await asyncio.gather(*held, call(channel, 1, declared=None))
    assert len(service.read) == 5
    # On a busy machine the time of a short one may be over before the server has heard of it.
    cancelled = [f"{counted('CANCELLED', 'U')} {count}.0" for count in (12, 13, 14, 15)]
    text = await scrape(server)
    assert any(line in text for line in cancelled)


async def test_a_wait_without_a_deadline_has_an_end(service: Held) -> None:
    async with serving(ORCHESTRATOR.model_copy(update={"default_deadline_s": 0.2}), service) as (server, channel):
        with server.budget.account() as account:
            account.add(100 * MIB, Phase.DOOR)
            # Some small requests would be let in.
            account.add(6 * MIB, Phase.SMALL)
            for said in (10, None):
                metadata = () if said is None else (("sluiceway-request-bytes", str(said)),)
                error = await refusal(channel.unary_unary(PREFIX + "U")(b"x" * 10, metadata=metadata))
                assert isinstance(error, QueueFull)
                assert error.retry_after_s
    assert service.read == []


async def test_a_client_that_sends_no_request_does_not_keep_the_place_that_it_has(service: Held) -> None:
    service.go.set()
    async with serving(ORCHESTRATOR.model_copy(update={"default_deadline_s": 0.3}), service) as (server, channel):
        # As a stream they are open, and their one message never comes.
        silent = [channel.stream_unary(PREFIX + "U")() for _ in range(2)]
        await until(lambda: server._interceptor.running == 2)
        # It waits for a place as long as they may keep theirs, and on a busy machine a moment less.
        answer = None
        while answer is None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await call(channel, 7, declared=None, timeout=30)
        assert answer == b"7"
        for lazy in silent:
            with pytest.raises(grpc.aio.AioRpcError):
                await lazy
        await until(lambda: server._interceptor.running == 0)
        assert f"{counted('DEADLINE_EXCEEDED', 'U')} 2.0" in await scrape(server)


async def test_a_request_of_ordinary_size_that_never_comes_is_given_up(service: Held) -> None:
    async with serving(ORCHESTRATOR.model_copy(update={"default_deadline_s": 0.3}), service) as (server, channel):
        metadata = (("sluiceway-request-bytes", str(MIB // 2)),)
        silent = channel.stream_unary(PREFIX + "U")(metadata=metadata)
        await until(lambda: server._interceptor.running == 1)
        assert server.budget.used_bytes == MIB
        await until(lambda: server._interceptor.running == 0)
        assert server.budget.used_bytes == 0
        silent.cancel()
        service.go.set()
        assert await call(channel, MIB // 2, timeout=30) == str(MIB // 2).encode(), "one that comes is served"


async def test_draining_refuses_those_who_still_wait_and_waits_for_the_others(service: Held) -> None:
    async with serving(ORCHESTRATOR, service) as (server, channel):
        held = [asyncio.ensure_future(call(channel, 10 * MIB)) for _ in range(4)]
        await until(lambda: len(service.read) == 4)
        waiting = [asyncio.ensure_future(call(channel, 10 * MIB, declared=said)) for said in (10 * MIB, None, None)]
        await until(lambda: server._interceptor.running == 7 and server.budget.waiting == 3)
        stopping = asyncio.create_task(server.stop())
        for task in waiting:
            assert isinstance(await refusal(task), Unavailable)
        # The server is done with a call a moment after its client has heard so.
        await until(lambda: server._interceptor.running == 4)
        assert not stopping.done()
        service.go.set()
        assert await asyncio.gather(*held) == [str(10 * MIB).encode()] * 4
        assert await stopping
    assert len(service.read) == 4
