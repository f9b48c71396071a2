"""Batches and news that get lost between a pool's front and its workers, and whose fault that is not."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_bench import make_pool
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import StartupError, Unavailable
from sluiceway_runtime.pool import Payload, Placement, Pool, Timing
from sluiceway_runtime.pool.transport.channel import Channel, Packet

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05)
PATIENCE_S = 30


class Unreadable:
    """A value that exists only in the process that made it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> Unreadable:
    if os.getpid() != pid:
        raise ValueError("it exists in another process alone")
    return Unreadable()


class Quiet:
    """A handler whose readiness cannot be heard, as its facts cannot be unpickled."""

    def __init__(self, _config: Mapping[str, Any]) -> None:
        pass

    def setup(self, _placement: Placement) -> Mapping[str, Any]:
        return {"fact": Unreadable()}

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload]:
        return batch


@pytest.fixture(autouse=True)
def handlers_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def make(handler: str = "pool_handlers:Scripted", **options: Any) -> Pool:
    return make_pool(handler, timing=QUICK, batch_timeout_s=120, start_timeout_s=120, **options)


def submit(pool: Pool, number: int, size: int = 0) -> asyncio.Future[Any]:
    payload = Payload({"id": number}, (bytes(size),) if size else ())
    return pool.submit(payload, request_id="r", deadline=Deadline.after(PATIENCE_S))


@pytest.mark.parametrize("size", [0, 100_000], ids=["in the packet", "in shared memory"])
async def test_a_batch_that_the_kernel_does_not_take_is_told_and_the_next_ones_go(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(credits_each=2)
    await pool.start()
    try:
        await submit(pool, 0, size)
        send = Channel._send
        refused: list[int] = []

        def short_of_memory(self: Channel, packet: Packet, flags: int) -> None:
            if not refused:
                refused.append(packet.tag)
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            send(self, packet, flags)

        monkeypatch.setattr(Channel, "_send", short_of_memory)
        with pytest.raises(Unavailable, match="short of descriptors or memory"):
            await submit(pool, 1, size)
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*(submit(pool, number, size) for number in range(2, 12)))
        assert [answer.payload.meta["id"] for answer in answers] == list(range(2, 12))
        assert len(refused) == 1
        assert pool.statistics().counters.deaths == 0
    finally:
        await pool.close()


async def test_a_worker_whose_readiness_cannot_be_heard_fails_the_start_at_once() -> None:
    pool = make(f"{Path(__file__).stem}:Quiet")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(StartupError, match="exists in another process alone"):
            await pool.start()


async def test_an_item_sent_to_workers_that_were_dead_already_is_not_blamed() -> None:
    """An out-of-memory killer may take all workers at once; the front learns of it a moment later."""
    pool = make(workers=2)
    await pool.start()
    try:
        # The next item goes where the last one was; that worker's end is heard of first.
        next_one = (await submit(pool, 0)).worker
        pids = [worker.pid for worker in pool.statistics().workers]
        for pid in (pids[next_one], pids[1 - next_one]):
            os.kill(pid, signal.SIGKILL)
            # Not awaited: the loop must not notice before the item is on its way.
            while psutil.pid_exists(pid):
                time.sleep(0.001)
            time.sleep(0.1)
        async with asyncio.timeout(PATIENCE_S):
            answer = await submit(pool, 1)
        assert answer.payload.meta["id"] == 1
        counters = pool.statistics().counters
        assert (counters.quarantined, counters.deaths) == (0, 2)
    finally:
        await pool.close()
