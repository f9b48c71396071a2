"""Events on their way to a client."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from loop_time import pass_time
from sluiceway_orchestrator.events import Event, JobDone, SourceReady, ValuesRead
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.errors import Cancelled

from sluiceway.pipeline.v1 import pipeline_pb2


def outbox_of(limit: int, *, coalesce_s: float, coalesce_items: int, budget: MemoryBudget | None = None) -> Outbox:
    budget = budget or MemoryBudget(2**30)
    return Outbox(limit, coalesce_s=coalesce_s, coalesce_items=coalesce_items, account=budget.account())


def read(*ids: int, model: str = "m", step: str = "words") -> ValuesRead:
    values = pipeline_pb2.Values(values=[pipeline_pb2.Value(region_id=key) for key in ids])
    return ValuesRead(step, model, values, len(ids), values.ByteSize())


def ids_of(event: ValuesRead) -> tuple[int, ...]:
    return tuple(value.region_id for value in event.values.values)


async def take(outbox: Outbox, count: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(30):
        async for addressed in outbox:
            taken.append(addressed.event)
            if len(taken) == count:
                break
    return taken


async def test_the_first_value_goes_at_once_and_the_next_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = outbox_of(8, coalesce_s=600, coalesce_items=100)
    for index in range(5):
        await outbox.put("j", "s", read(index))
    pass_time(500, monkeypatch)
    await asyncio.sleep(0.01)
    assert len(outbox) == 1
    pass_time(101, monkeypatch)
    first, rest = await take(outbox, 2)
    assert first == read(0)
    assert isinstance(rest, ValuesRead)
    assert (ids_of(rest), rest.count, rest.model, rest.size_bytes) == ((1, 2, 3, 4), 4, "m", rest.values.ByteSize())


async def test_enough_values_do_not_wait() -> None:
    outbox = outbox_of(8, coalesce_s=60, coalesce_items=3)
    for index in range(7):
        await outbox.put("j", "s", read(index))
    events = await take(outbox, 3)
    assert [ids_of(event) for event in events if isinstance(event, ValuesRead)] == [(0,), (1, 2, 3), (4, 5, 6)]


async def test_sources_steps_and_models_are_gathered_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = outbox_of(16, coalesce_s=600, coalesce_items=100)
    for source in ("a", "b"):
        await outbox.put("j", source, read(0))
        await outbox.put("j", source, read(1, model="m"))
        await outbox.put("j", source, read(1, step="logos"))
        await outbox.put("j", source, read(2, model="n"))
    # What another model read goes behind what was held back, which goes at once for it.
    assert len(outbox) == 4
    pass_time(601, monkeypatch)
    events = await take(outbox, 8)
    found = [(event.step, event.model, ids_of(event)) for event in events if isinstance(event, ValuesRead)]
    assert sorted(found) == sorted(
        [("words", "m", (0,)), ("words", "m", (1,)), ("logos", "m", (1,)), ("words", "n", (2,))] * 2
    )


async def test_what_was_held_back_goes_before_the_next_event_of_its_source() -> None:
    outbox = outbox_of(8, coalesce_s=60, coalesce_items=100)
    await outbox.put("j", "s", read(0))
    await outbox.put("j", "s", read(1))
    await outbox.put("j", "s", JobDone(1, 0))
    outbox.close()
    assert await take(outbox, 99) == [read(0), read(1), JobDone(1, 0)]


async def test_writers_wait_for_room_and_come_in_order() -> None:
    outbox = outbox_of(2, coalesce_s=0, coalesce_items=1)
    writers = [asyncio.create_task(outbox.put("j", str(n), JobDone(n, 0))) for n in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(outbox) == 2
    assert sum(writer.done() for writer in writers) == 2
    events = await take(outbox, 10)
    assert [event.succeeded for event in events if isinstance(event, JobDone)] == list(range(10))
    await asyncio.gather(*writers)


async def test_pictures_count_by_their_bytes() -> None:
    outbox = outbox_of(100, coalesce_s=0, coalesce_items=1)
    picture = SourceReady(1, image=bytes(10 * 2**20))
    writers = [asyncio.create_task(outbox.put("j", str(n), picture)) for n in range(5)]
    await asyncio.sleep(0.01)
    assert len(outbox) == 1
    assert len(await take(outbox, 5)) == 5
    await asyncio.gather(*writers)


async def test_a_writer_that_gives_up_leaves_its_turn_to_the_next() -> None:
    outbox = outbox_of(1, coalesce_s=0, coalesce_items=1)
    await outbox.put("j", "0", JobDone(0, 0))
    first = asyncio.create_task(outbox.put("j", "1", JobDone(1, 0)))
    second = asyncio.create_task(outbox.put("j", "2", JobDone(2, 0)))
    await asyncio.sleep(0)
    first.cancel()
    events = await take(outbox, 2)
    assert [event.succeeded for event in events if isinstance(event, JobDone)] == [0, 2]
    await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_discarding_frees_writers_and_ends_timers() -> None:
    budget = MemoryBudget(2**20)
    outbox = outbox_of(1, coalesce_s=60, coalesce_items=100, budget=budget)
    await outbox.put("j", "s", replace(read(0), size_bytes=2**18))
    await outbox.put("j", "s", read(1))
    assert budget.used_bytes > 0
    outbox.discard()
    assert await take(outbox, 1) == []
    assert len(outbox) == 0
    assert budget.used_bytes == 0


async def test_nothing_is_kept_of_a_job_that_was_cancelled() -> None:
    outbox = outbox_of(8, coalesce_s=60, coalesce_items=10)
    outbox.when_told("j", lambda: None)
    await outbox.put("j", "s", read(0))
    outbox.expire("j", ["s"], Cancelled("the job was cancelled"))
    await take(outbox, 2)
    assert not outbox._sent_s
    assert outbox.is_told("j")
