"""What the door of a real server makes of each call: its metadata, its kind, its caller, and how it is counted."""

from __future__ import annotations

import asyncio
import hashlib

import aiohttp
import grpc
import grpc.aio
import pytest
from door_service import (
    MIB,
    OPTIONS,
    ORCHESTRATOR,
    PREFIX,
    STAGE,
    Held,
    Metadata,
    call,
    counted,
    refusal,
    scrape,
    serving,
)
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import (
    ImageTooLarge,
    InvalidOption,
    QueueFull,
    SluicewayError,
    Unauthenticated,
    Unavailable,
    WrongGroup,
)
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.security import ClientConfig, Security, SecurityConfig
from waiting import until


async def test_what_is_wrong_and_keeps_nothing_from_working_shows_at_readyz(service: Held) -> None:
    service.problems = ("pipelines.read.steps.words.model: …",)  # type: ignore[attr-defined]
    async with (
        serving(STAGE, service) as (server, _),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.operations_port}/readyz") as response,
    ):
        assert response.status == 200
        assert await response.text() == "ready\npipelines.read.steps.words.model: …\n"


@pytest.mark.parametrize("config", [ORCHESTRATOR, STAGE], ids=["orchestrator", "stage"])
async def test_a_request_larger_than_it_said_is_refused_unread_by_the_handler(
    config: ServerConfig, service: Held
) -> None:
    async with serving(config, service) as (server, channel):
        error = await refusal(call(channel, 1001, declared=1000))
        assert isinstance(error, InvalidOption)
        assert error.metadata == {"sluiceway-request-bytes": "1000", "size_bytes": "1001"}
        assert service.read == []

        async def is_counted() -> bool:
            return f"{counted('INVALID_ARGUMENT', 'U')} 1.0" in await scrape(server)

        # A call is counted when its handler has ended, which is after its client has the answer.
        await until(is_counted)


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ((("sluiceway-request-bytes", "-1"),), InvalidOption),
        ((("sluiceway-request-bytes", "1e3"),), InvalidOption),
        ((("sluiceway-request-bytes", ""),), InvalidOption),
        ((("sluiceway-request-bytes", "9" * 5000),), InvalidOption),
        ((("sluiceway-request-bytes", str(10 * MIB + 1)),), ImageTooLarge),
        ((("sluiceway-priority", "urgent"),), InvalidOption),
    ],
)
async def test_metadata_that_makes_no_sense_is_refused(
    stage: tuple[Server, grpc.aio.Channel], service: Held, metadata: Metadata, kind: type[SluicewayError]
) -> None:
    _, channel = stage
    assert type(await refusal(call(channel, 1, declared=None, metadata=metadata))) is kind
    assert service.read == []


async def test_a_request_that_is_no_message_is_the_clients_fault(stage: tuple[Server, grpc.aio.Channel]) -> None:
    server, channel = stage
    assert isinstance(await refusal(call(channel, 3, method="Strict")), InvalidOption)
    assert f"{counted('INVALID_ARGUMENT', 'Strict')} 1.0" in await scrape(server)


async def test_a_replica_of_another_group_refuses_before_it_reads(
    stage: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    _, channel = stage
    service.go.set()
    wants = (("sluiceway-group", "blue"),)
    # A service that knows no groups is of any.
    assert await call(channel, 1, metadata=wants) == b"1"
    service.group = "green"
    error = await refusal(call(channel, 1, metadata=wants))
    assert isinstance(error, WrongGroup)
    assert error.metadata == {"group": "green"}
    assert service.read == [1]
    service.group = "blue"
    assert await call(channel, 1, metadata=wants) == b"1"
    assert await call(channel, 1) == b"1"


async def test_every_kind_of_method_is_wrapped_as_what_it_is(
    stage: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = stage
    service.go.set()
    assert await channel.unary_unary(PREFIX + "U")(b"xx") == b"2"
    assert [answer async for answer in channel.unary_stream(PREFIX + "US")(b"xxx")] == [b"first"]
    assert [answer async for answer in channel.stream_stream(PREFIX + "SS")(iter([b"a", b"bb"]))] == [b"a", b"b"]
    # A stream holds room for its next message: twice what it said, or what it was seen to send.
    said = (("sluiceway-request-bytes", str(MIB)),)
    messages = [bytes(MIB), b"x"]
    assert (
        await channel.stream_unary(PREFIX + "SU")(iter(messages), metadata=said)
        == f"{2 * MIB} {2 * MIB} {2 * MIB}".encode()
    )
    first, *seen = (await channel.stream_unary(PREFIX + "SU")(iter([b"x", bytes(2 * MIB)]))).split()
    assert 0 < int(first) <= 2 * MIB
    assert seen == [first, str(4 * MIB).encode()]
    error = await refusal(channel.stream_unary(PREFIX + "SU")(iter([bytes(MIB + 1)]), metadata=said))
    assert isinstance(error, InvalidOption)
    text = await scrape(server)
    for method in ("U", "US", "SS", "SU"):
        assert counted("OK", method) in text


async def test_refusals_are_counted_like_every_call_and_nothing_of_them_is_read(service: Held) -> None:
    token = ClientConfig(token_sha256=hashlib.sha256(b"tok").hexdigest(), max_concurrent=1)
    async with serving(STAGE, service, Security(SecurityConfig(clients={"eye": token}))) as (server, channel):
        known = (("authorization", "Bearer tok"),)
        for metadata in ((), (("authorization", "Bearer nope"),)):
            for method in ("U", "Describe", "NoSuchMethod"):
                assert isinstance(await refusal(call(channel, 10, method=method, metadata=metadata)), Unauthenticated)
        held = call(channel, 10, metadata=known)
        await until(lambda: len(service.read) == 1)
        assert isinstance(await refusal(call(channel, 10, metadata=known)), QueueFull)
        service.go.set()
        await held
        # The place among the client's own is free again, also after a refusal for another reason.
        for _ in range(3):
            assert isinstance(await refusal(call(channel, 10, declared=9, metadata=known)), InvalidOption)
        assert await call(channel, 10, metadata=known) == b"10"
        text = await scrape(server)
    for code, method, number in (
        ("UNAUTHENTICATED", "U", 2),
        ("UNAUTHENTICATED", "Describe", 2),
        ("UNAUTHENTICATED", "other", 2),
        ("RESOURCE_EXHAUSTED", "U", 1),
        ("INVALID_ARGUMENT", "U", 3),
        ("OK", "U", 2),
    ):
        assert f"{counted(code, method)} {number}.0" in text
    assert service.read == [10, 10]


async def test_a_service_that_starts_answers_its_scraper_and_refuses_calls_unread(service: Held) -> None:
    service.started.clear()
    server = Server(service, STAGE)
    starting = asyncio.create_task(server.start())
    await until(lambda: server.port > 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
        assert isinstance(await refusal(call(channel, 10)), Unavailable)
        assert await call(channel, 0, declared=None, method="Describe") == b"0"
        text = await scrape(server)
        assert f"{counted('UNAVAILABLE', 'U')} 1.0" in text
        assert "sluiceway_account_limit_bytes" in text
    service.started.set()
    await starting
    await scrape(server)
    await server.close()
    assert service.read == []
