"""Memory that front and workers share: what is counted, what is freed, and what it costs the loop to get it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_bench import make_pool, pids
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Unavailable
from sluiceway_runtime.pool import Payload, Pool, Timing
from sluiceway_runtime.pool.transport import arena, channel
from waiting import until

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05)
MB = 2**20
Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts pools of one worker, and closes them; no descriptor and no shared memory may be left of them."""
    descriptors = psutil.Process().num_fds()
    pools: list[Pool] = []

    async def build(**options: Any) -> Pool:
        pools.append(make_pool(timing=QUICK, queue_bytes=2**30, **options))
        await pools[-1].start()
        return pools[-1]

    yield build
    for pool in pools:
        await pool.close()
    assert psutil.Process().num_fds() <= descriptors
    # A thread that has just made some lets go of it in its own time.
    await until(lambda: shared_mb("self") < 1)


def submit(pool: Pool, size: int, **meta: Any) -> asyncio.Future[Any]:
    return pool.submit(
        Payload({"id": size, "echo": False} | meta, (bytes(size),)), request_id="r", deadline=Deadline.after(60)
    )


def shared_mb(pid: int | str) -> float:
    """Of a process, what is mapped and present of memory that it shares by descriptor."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("RssShmem:")[2].split()[0]) / 1024


async def test_a_picture_on_its_way_does_not_count_as_memory_of_the_worker(start):
    """The worker needs 25 MB or so for itself, and would be replaced after each picture of 60."""
    pool = await start(worker_memory_mb=50)
    for _ in range(5):
        await submit(pool, 60 * MB)
    assert pool.statistics().counters.recycled == 0
    [pid] = pids(pool)
    assert shared_mb(pid) > 50, "it has the picture mapped"


async def test_what_a_burst_of_large_pictures_took_is_free_after_it(start, monkeypatch):
    monkeypatch.setattr(arena, "IDLE_S", 0.3)
    pool = await start(credits_each=3, max_batch=1)
    gate = asyncio.gather(*(submit(pool, 33 * MB) for _ in range(12)))
    await gate
    [pid] = pids(pool)
    while shared_mb("self") > 3 or shared_mb(pid) > 3:
        await submit(pool, 100_000)  # small ones go on all the time
    assert pids(pool) == [pid]
    await submit(pool, 33 * MB)
    assert shared_mb(pid) > 30


@pytest.mark.parametrize("size", [6 * MB, 60 * MB, 100 * MB])
async def test_the_loop_does_not_stand_still_while_memory_is_made(start, monkeypatch, size):
    """Getting it takes a millisecond for each MiB, so it is left to a thread."""
    pool = await start(max_batch=1)
    made_in: list[int] = []
    make, write = arena.Arena.make, channel._write_memory

    def noted_make(self: arena.Arena) -> None:
        made_in.append(threading.get_ident())
        make(self)

    def noted_write(pieces: Any, total: int) -> int:
        made_in.append(threading.get_ident())
        return write(pieces, total)

    monkeypatch.setattr(arena.Arena, "make", noted_make)
    monkeypatch.setattr(channel, "_write_memory", noted_write)
    answer = await submit(pool, size)
    assert answer.payload.meta["id"] == size
    assert made_in
    assert threading.get_ident() not in made_in


async def test_batches_stay_in_order_behind_one_whose_memory_is_still_made(start, monkeypatch, tmp_path):
    pool = await start(max_batch=1, credits_each=3)
    gate = threading.Event()
    make = arena.Arena.make

    def slow(self: arena.Arena) -> None:
        gate.wait(30)
        make(self)

    monkeypatch.setattr(arena.Arena, "make", slow)
    order: list[int] = []
    futures = [submit(pool, size) for size in (20 * MB, 1, 2)]
    for future in futures:
        future.add_done_callback(lambda done: order.append(done.result().payload.meta["id"]))
    assert pool.load().running == 3
    gate.set()
    await asyncio.gather(*futures)
    assert order == [20 * MB, 1, 2]


async def test_without_memory_a_large_batch_fails_as_unavailable_and_the_next_is_computed(start, monkeypatch):
    pool = await start(max_batch=1)

    def refuse(_: arena.Arena) -> None:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(arena.Arena, "make", refuse)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await submit(pool, 20 * MB)
    assert (await submit(pool, 20 * MB)).payload.meta["id"] == 20 * MB
    assert pool.statistics().counters.deaths == 0


async def test_a_pool_that_closes_while_memory_is_made_leaves_none(start, monkeypatch):
    pool = await start(max_batch=1)
    gate = threading.Event()
    make = arena.Arena.make

    def slow(self: arena.Arena) -> None:
        gate.wait(30)
        make(self)

    monkeypatch.setattr(arena.Arena, "make", slow)
    future = submit(pool, 20 * MB)
    closing = asyncio.create_task(pool.close())
    with pytest.raises(Unavailable):
        await future
    gate.set()
    await closing
