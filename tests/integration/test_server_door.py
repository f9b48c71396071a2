"""The door of a real server: what is refused, and what waits, before any of a request is read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.utils import floatToGoString
from sluiceway_runtime.account import MemoryBudget, Phase
from sluiceway_runtime.config import ServerConfig, StageConfig
from sluiceway_runtime.errors import (
    ImageTooLarge,
    InvalidOption,
    QueueFull,
    SluicewayError,
    Unauthenticated,
    Unavailable,
    WrongGroup,
)
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.door import current_account
from sluiceway_runtime.server.security import ClientConfig, Security, SecurityConfig
from sluiceway_runtime.server.status import from_rpc_error

MIB = 2**20
PREFIX = "/sluiceway.t.v1.T/"
# A message of 10 MiB is 20 MiB while it is read. In the normal class there is room for 54 MiB at the door of the
# orchestrator, and for 90 at a stage's.
LIMITS = {"memory_bytes": 100 * MIB, "max_message_bytes": 10 * MIB, "port": 0, "operations_port": 0}
ORCHESTRATOR = ServerConfig(**LIMITS, drain_notice_s=0)
STAGE = StageConfig(**LIMITS, drain_notice_s=0)
OPTIONS = [("grpc.max_send_message_length", -1)]

Metadata = tuple[tuple[str, str], ...]


class Held:
    """A service whose calls are held until the test lets them go, and which knows what each had read."""

    names = ("sluiceway.t.v1.T",)
    group = ""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.go = asyncio.Event()
        self.budget: MemoryBudget | None = None
        self.started = asyncio.Event()
        self.started.set()

    def use_budget(self, budget: MemoryBudget) -> None:
        self.budget = budget

    async def _unary(self, request: bytes, _context: Any) -> bytes:
        self.read.append(len(request))
        account = current_account.get()
        assert account is not None
        await self.go.wait()
        return str(account.held_bytes).encode()

    async def _stream_unary(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        account = current_account.get()
        assert account is not None
        seen = [f"{account.held_bytes}"]
        async for request in requests:
            self.read.append(len(request))
            seen.append(f"{account.held_bytes}")
        return " ".join(seen).encode()

    async def _unary_stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        self.read.append(len(request))
        yield b"first"
        await self.go.wait()

    async def _stream_stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.read.append(len(request))
            yield request[:1]

    async def start(self) -> None:
        await self.started.wait()

    def register(self, server: grpc.aio.Server) -> None:
        methods = {
            "U": grpc.unary_unary_rpc_method_handler(self._unary),
            "SU": grpc.stream_unary_rpc_method_handler(self._stream_unary),
            "US": grpc.unary_stream_rpc_method_handler(self._unary_stream),
            "SS": grpc.stream_stream_rpc_method_handler(self._stream_stream),
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Strict": grpc.unary_unary_rpc_method_handler(self._unary, request_deserializer=int),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.names[0], methods),))

    async def _describe(self, request: bytes, _context: Any) -> bytes:
        return str(len(request)).encode()

    def collectors(self, registry: CollectorRegistry) -> None:
        registry.register(Broken(self))  # type: ignore[arg-type]

    def ready(self) -> bool:
        return True

    def status(self) -> Mapping[str, Any]:
        return {}

    def refuse(self) -> None: ...

    async def drain(self, grace_s: float) -> bool:
        return True

    async def close(self) -> None: ...


class Broken:
    """A collector of a service that cannot be asked before it has started."""

    def __init__(self, service: Held) -> None:
        self._service = service

    def collect(self) -> list[Any]:
        assert self._service.started.is_set()
        return []


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig, service: Held, security: Security | None = None
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    server = Server(service, config, security)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
            yield server, channel
        await until(lambda: server.budget.used_bytes == 0)
        assert server.budget.waiting == 0
    finally:
        await server.close()


@pytest.fixture
def service() -> Held:
    return Held()


@pytest.fixture
async def orchestrator(service: Held) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving(ORCHESTRATOR, service) as both:
        yield both


@pytest.fixture
async def stage(service: Held) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving(STAGE, service) as both:
        yield both


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def counted(code: str, method: str) -> str:
    """The series of calls of a method that ended with a code."""
    name = method if method == "other" else f"{PREFIX.strip('/')}/{method}"
    return f'rpc_server_call_duration_seconds_count{{rpc_method="{name}",rpc_response_status_code="{code}"}}'


async def scrape(server: Server) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.operations_port}/metrics") as response,
    ):
        assert response.status == 200
        return await response.text()


def call(
    channel: grpc.aio.Channel,
    size_bytes: int,
    *,
    declared: int | None = -1,
    priority: str | None = None,
    method: str = "U",
    metadata: Metadata = (),
    timeout: float = 60,
) -> Any:
    """Send so many bytes, and say so unless told otherwise."""
    if declared == -1:
        declared = size_bytes
    if declared is not None:
        metadata += (("sluiceway-request-bytes", str(declared)),)
    if priority is not None:
        metadata += (("sluiceway-priority", priority),)
    return channel.unary_unary(PREFIX + method)(bytes(size_bytes), metadata=metadata, timeout=timeout)


async def refusal(answer: Awaitable[Any]) -> SluicewayError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return from_rpc_error(caught.value)


async def test_bytes_count_from_the_door_until_the_call_ends(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = orchestrator
    assert service.budget is server.budget
    calls = [call(channel, 5 * MIB), call(channel, 3 * MIB, declared=None)]
    await until(lambda: len(service.read) == 2)
    assert server.budget.used_bytes == 8 * MIB
    assert f"sluiceway_account_bytes {floatToGoString(8 * MIB)}" in await scrape(server)
    service.go.set()
    assert Counter([await call for call in calls]) == {str(5 * MIB).encode(): 1, str(3 * MIB).encode(): 1}
    await until(lambda: server.budget.used_bytes == 0)


async def test_an_orchestrators_calls_wait_at_the_door_and_nothing_of_them_is_read(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = orchestrator
    # 20 MiB while it is read and 10 afterwards: the fifth finds 40 in use.
    calls = [call(channel, 10 * MIB) for _ in range(12)]
    await until(lambda: len(service.read) == 4 and server.budget.waiting == 8)
    assert server.budget.used_bytes == 40 * MIB
    service.go.set()
    assert await asyncio.gather(*calls) == [str(10 * MIB).encode()] * 12
    assert service.read == [10 * MIB] * 12


async def test_a_small_call_passes_the_line_of_large_ones(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = orchestrator
    calls = [call(channel, 10 * MIB) for _ in range(6)]
    await until(lambda: len(service.read) == 4 and server.budget.waiting == 2)
    small = call(channel, MIB // 2)
    await until(lambda: MIB // 2 in service.read)
    assert server.budget.waiting == 2
    service.go.set()
    await asyncio.gather(small, *calls)


async def test_a_stage_refuses_what_it_has_no_room_for_at_once(
    stage: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = stage
    calls = [asyncio.ensure_future(call(channel, 9 * MIB)) for _ in range(30)]
    await until(lambda: len(service.read) + sum(task.done() for task in calls) == 30)
    for error in [await refusal(task) for task in calls if task.done()]:
        assert isinstance(error, QueueFull)
        assert error.retry_after_s
    assert server.budget.used_bytes == 9 * MIB * len(service.read) <= 90 * MIB
    # Those who do not say how large they are wait only for each other, and not for what is held.
    while not isinstance(await_refusal := await hold_or_refuse(channel, service), QueueFull):
        assert await_refusal is None
    service.go.set()
    await asyncio.gather(*calls, return_exceptions=True)


async def hold_or_refuse(channel: grpc.aio.Channel, service: Held) -> SluicewayError | None:
    """One more call that does not say its size: None if it is held now, or what it was refused with."""
    before = len(service.read)
    task = asyncio.ensure_future(call(channel, 9 * MIB, declared=None))
    await until(lambda: task.done() or len(service.read) > before)
    return await refusal(task) if task.done() else None


async def test_an_idle_stage_reads_any_number_of_calls_that_do_not_say_their_size(
    stage: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    _, channel = stage
    calls = [call(channel, 100, declared=None) for _ in range(50)]
    await until(lambda: len(service.read) == 50)
    service.go.set()
    assert await asyncio.gather(*calls) == [b"100"] * 50


async def test_interactive_work_has_room_at_the_door_that_bulk_work_cannot_fill(
    stage: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    _, channel = stage
    calls = []
    while True:
        task = asyncio.ensure_future(call(channel, 5 * MIB, priority="bulk"))
        before = len(service.read)
        await until(lambda: task.done() or len(service.read) > before)  # noqa: B023 - it is awaited here
        if task.done():
            assert isinstance(await refusal(task), QueueFull)
            break
        calls.append(task)
    interactive = call(channel, 5 * MIB, priority="interactive")
    await until(lambda: len(service.read) == len(calls) + 1)
    service.go.set()
    await asyncio.gather(interactive, *calls)


async def test_the_class_at_the_door_is_the_one_that_the_service_allows(service: Held) -> None:
    """What only interactive work finds room for is refused to a client that may not be interactive."""
    asked: list[tuple[str, Priority]] = []

    def class_of(client: str, priority: Priority) -> Priority:
        asked.append((client, priority))
        return Priority.BULK

    service.class_of = class_of  # type: ignore[attr-defined]
    async with serving(STAGE, service) as (server, channel):
        room = server.budget.limit_bytes(Phase.DOOR, Priority.BULK)
        with server.budget.account() as account:
            account.add(room, Phase.DOOR)
            assert isinstance(await refusal(call(channel, MIB, priority="interactive")), QueueFull)
            assert server.budget.fits(2 * MIB, Phase.DOOR, Priority.INTERACTIVE)
    assert asked == [("anonymous", Priority.INTERACTIVE)]


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
        assert f"{counted('INVALID_ARGUMENT', 'U')} 1.0" in await scrape(server)


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
        assert not stopping.done()
        assert server._interceptor.running == 4
        service.go.set()
        assert await asyncio.gather(*held) == [str(10 * MIB).encode()] * 4
        assert await stopping
    assert len(service.read) == 4


async def test_questions_are_answered_whatever_waits(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    server, channel = orchestrator
    with server.budget.account(Priority.INTERACTIVE) as account:
        account.add(200 * MIB, Phase.DOOR)
        waiting = call(channel, 10 * MIB)
        await until(lambda: server.budget.waiting == 1)
        for declared in (0, None):
            assert await call(channel, 0, declared=declared, method="Describe") == b"0"
    service.go.set()
    assert await waiting == str(10 * MIB).encode()


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
