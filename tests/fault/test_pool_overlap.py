"""Workers with several batches begun, real processes: in order, asked to leave, killed, and broken."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pool_bench import make_pool, pids
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Quarantined, Unavailable
from sluiceway_runtime.pool import Payload, Pool, Timing
from waiting import until

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=5.0)
Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a pool of one worker that may have two batches begun, of two items each."""
    pools: list[Pool] = []

    async def build(**limits: Any) -> Pool:
        config = {"overlap_journal": str(tmp_path / "overlap"), "journal": str(tmp_path / "items")}
        own = {"credits_each": 3, "overlap": 2, "max_batch": 2, "config": config, "timing": QUICK}
        pools.append(make_pool("pool_handlers:Overlapping", **own, **limits))
        await pools[-1].start()
        return pools[-1]

    yield build
    for pool in pools:
        await pool.close()


def submit(pool: Pool, number: int, **meta: Any) -> asyncio.Future[Any]:
    return pool.submit(Payload({"id": number} | meta), request_id="r", deadline=Deadline.after(20))


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def begun(pool: Pool, tmp_path: Path, **first: Any) -> list[asyncio.Future[Any]]:
    """Six items, of which the first batch waits in its finish and the second is launched; the third is not begun."""
    gate = str(tmp_path / "gate")
    futures = [submit(pool, 0, wait_for=gate, **first), submit(pool, 1)]
    # By itself: what an idle worker gets is sent at once, and these are to be one batch.
    await until(lambda: any(line[0] == "finish" for line in lines(tmp_path / "overlap")))
    futures += [submit(pool, number) for number in range(2, 6)]
    return futures


async def test_the_next_batch_is_launched_before_the_one_before_it_ends(start, tmp_path):
    pool = await start()
    gate = tmp_path / "gate"
    gate.touch()
    answers = await asyncio.gather(*(submit(pool, number, pause=0.02) for number in range(12)))
    assert [answer.payload.meta["id"] for answer in answers] == list(range(12))
    events = [(what, batch) for what, batch, _ in lines(tmp_path / "overlap")]
    batches = [batch for what, batch in events if what == "launch"]
    assert [batch for what, batch in events if what == "finish"] == batches
    ahead = [events.index(("launch", after)) < events.index(("finish", before)) for before, after in pairwise(batches)]
    # All but the last few, while a busy machine keeps the front from sending the next one in time.
    assert sum(ahead) > len(ahead) / 2
    # Never more than two.
    for position in range(len(events)):
        whats = [what for what, _ in events[: position + 1]]
        assert whats.count("launch") - whats.count("finish") <= 2


async def test_a_worker_that_is_asked_to_leave_finishes_what_it_has_begun(start, tmp_path):
    pool = await start()
    futures = await begun(pool, tmp_path)
    [pid] = pids(pool)
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "gate").touch()
    answers = [answer.payload.meta for answer in await asyncio.gather(*futures)]
    assert [answer["id"] for answer in answers] == list(range(6))
    # Each item was computed once: what had been begun by the old worker, the rest by the new one.
    computed = [line[0] for line in lines(tmp_path / "items")]
    assert sorted(computed) == [str(number) for number in range(6)]
    assert [answer["pid"] for answer in answers[:2]] == [pid, pid]


async def test_whoever_kills_a_worker_with_two_batches_begun_is_found(start, tmp_path):
    pool = await start()
    futures = await begun(pool, tmp_path, crash=True)
    (tmp_path / "gate").touch()
    guilty, *others = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(guilty, Quarantined)
    assert [other.payload.meta["id"] for other in others] == [1, 2, 3, 4, 5]


async def test_a_worker_killed_from_outside_loses_nothing(start, tmp_path):
    pool = await start()
    futures = await begun(pool, tmp_path)
    [pid] = pids(pool)
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "gate").touch()
    answers = await asyncio.gather(*futures)
    assert [answer.payload.meta["id"] for answer in answers] == list(range(6))


async def test_a_worker_that_can_compute_no_more_is_replaced(start, tmp_path):
    """It says that its device is gone: that is nobody's fault who asks, and nothing is held against the item."""
    pool = await start()
    [pid] = pids(pool)
    for number in range(3):
        with pytest.raises(Unavailable) as told:
            await submit(pool, number, broken=True)
        assert "alone" in told.value.metadata["story"]
        await until(lambda: pool.able)
    answer = await submit(pool, 9)
    assert answer.payload.meta["pid"] != pid
    assert pool.statistics().counters.quarantined == 0


async def test_what_waits_for_a_device_that_is_gone_is_tried_elsewhere(start, tmp_path):
    """And the machine takes nothing until it has computed one of them, which nobody waits for any more."""
    pool = await start()
    gone = tmp_path / "gone"
    gone.touch()
    answers = await asyncio.gather(
        *(submit(pool, number, broken_while=str(gone)) for number in range(12)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Unavailable] * 12
    assert not pool.able
    assert pool.load().capacity == 0
    with pytest.raises(Unavailable):
        submit(pool, 12)
    gone.unlink()
    await until(lambda: pool.able)
    assert (await submit(pool, 13)).payload.meta["id"] == 13
