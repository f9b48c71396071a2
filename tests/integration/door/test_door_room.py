"""Room at the door of a real server: who is let in, who waits and who is refused, before any of a request is read."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import grpc.aio
from door_service import (
    MIB,
    PREFIX,
    STAGE,
    Held,
    call,
    refusal,
    scrape,
    serving,
)
from prometheus_client.utils import floatToGoString
from sluiceway_runtime.account import Phase
from sluiceway_runtime.errors import (
    QueueFull,
    SluicewayError,
)
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.app import Server
from waiting import until


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


async def test_streams_that_say_nothing_keep_nobody_waiting_and_are_read_again_in_their_turn(
    orchestrator: tuple[Server, grpc.aio.Channel], service: Held
) -> None:
    """Six streams of 10 MiB each would hold 120 MiB for ever, where there is room for 54 at the door."""
    server, channel = orchestrator
    said = (("sluiceway-request-bytes", str(10 * MIB)),)
    streams = []
    for number in range(6):
        streams.append(channel.stream_stream(PREFIX + "SS")(metadata=said))
        await streams[-1].write(bytes(10 * MIB))
        assert await streams[-1].read() == b"\0"
        assert len(service.read) == number + 1
    held = call(channel, 10 * MIB)
    await until(lambda: len(service.read) == 7)
    for stream in streams:
        await stream.write(bytes(10 * MIB))
        assert await stream.read() == b"\0"
    # Each message that came is told of, and read into room that was reserved from then on.
    assert server.budget.used_bytes <= 54 * MIB + 20 * MIB
    service.go.set()
    await held
    for stream in streams:
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
