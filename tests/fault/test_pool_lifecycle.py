"""What a pool leaves behind (nothing), whatever way it ends, and what it does when the machine runs short."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pool_bench import make_pool
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Unavailable
from sluiceway_runtime.logs import LogStyle
from sluiceway_runtime.pool import Payload, Placement, Pool, PoolLimits, Timing, WorkerSpec
from waiting import until, wait_until

# The grace is long, as deaths are counted: a worker that was asked to go and is kept from it that long counts as one.
QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=10.0)
HANDLERS = Path(__file__).parents[1] / "support"
make = functools.partial(make_pool, timing=QUICK)

FRONT = """
import asyncio, sys
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.pool import Payload, Placement, Pool, PoolLimits, WorkerSpec

async def main():
    sys.path.insert(0, {handlers!r})
    placements = tuple(Placement(index, "cpu", None, 1) for index in range(2))
    pool = Pool(WorkerSpec("pool_handlers:Scripted", {{"journal": {journal!r}}}, placements), PoolLimits(), name="x")
    await pool.start()
    work = [
        pool.submit(Payload({{"id": n}} | {meta!r}), request_id="r", deadline=Deadline.after(60)) for n in range(2)
    ]
    print(*(worker.pid for worker in pool.statistics().workers), flush=True)
    await asyncio.gather(*work)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def nothing_left() -> Iterator[None]:
    me = psutil.Process()
    descriptors, children = me.num_fds(), set(me.children(recursive=True))
    yield
    assert set(me.children(recursive=True)) <= children
    assert me.num_fds() <= descriptors


def submit(pool: Pool, number: int, size: int = 0, **meta: object) -> asyncio.Future[object]:
    payload = Payload({"id": number} | meta, (bytes(size),) if size else ())
    return pool.submit(payload, request_id="r", deadline=Deadline.after(30))


@pytest.mark.parametrize(
    "meta",
    [{}, {"hang": 60}, {"spin": 60}],
    ids=["idle", "computing", "computing with the interpreter's lock held"],
)
def test_no_worker_outlives_a_front_that_is_killed(tmp_path, meta):
    journal = tmp_path / "journal"
    script = FRONT.format(handlers=str(HANDLERS), journal=str(journal), meta=meta)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in front.stdout.readline().split()]
        assert len(workers) == 2
        wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)
        front.send_signal(signal.SIGKILL)
        front.wait(30)
    wait_until(lambda: not any(is_alive(worker) for worker in workers))


def test_workers_notice_a_closed_socket_even_without_the_death_signal(tmp_path):
    """The front's end closes, but the parent process lives: only the socket can tell."""
    from sluiceway_runtime.pool.transport.channel import Channel, pair
    from sluiceway_runtime.pool.transport.messages import Ready, Run, Start

    journal = tmp_path / "journal"
    here, there = pair()
    command = [sys.executable, "-m", "sluiceway_runtime.pool.worker", str(there.fileno()), str(os.getpid())]
    with subprocess.Popen(command, pass_fds=(there.fileno(),)) as worker:
        there.close()
        front = Channel(here)
        placement = Placement(0, "cpu", None, 1)
        front.send(
            Start("pool_handlers:Scripted", {"journal": str(journal)}, placement, tuple(sys.path), 1, LogStyle("test"))
        )
        assert isinstance(front.receive(), Ready)
        front.send(Run(1, (Payload({"id": 1, "hang": 60}),)))
        wait_until(journal.exists)
        front.close()
        assert worker.wait(30) == 4


async def test_memory_limit_recycles_under_load_without_a_lost_request(nothing_left):
    pool = make(workers=2, config={"leak_mb": 16}, worker_memory_mb=150)
    await pool.start()
    first = {worker.pid for worker in pool.statistics().workers}
    answers = await asyncio.gather(*(submit(pool, number, size=100_000) for number in range(60)))
    assert [answer.payload.meta["id"] for answer in answers] == list(range(60))
    counters = pool.statistics().counters
    assert counters.recycled >= 2
    assert counters.deaths == 0
    assert len({answer.payload.meta["pid"] for answer in answers} - first) >= 1
    await pool.close()


async def test_many_large_answers_leave_no_descriptor_and_no_memory(nothing_left):
    pool = make(max_batch=4)
    await pool.start()
    worker = psutil.Process(pool.statistics().workers[0].pid)
    me = psutil.Process()

    async def work(count: int) -> None:
        for number in range(count):
            answer = await submit(pool, number, size=1_000_000)
            assert len(answer.payload.buffers[0]) == 1_000_000

    await work(20)
    before = (me.num_fds(), worker.num_fds(), me.memory_info().rss, worker.memory_info().rss)
    await work(200)
    assert me.num_fds() <= before[0]
    wait_until(lambda: worker.num_fds() <= before[1])  # it closes its side a moment after the answer is here
    assert me.memory_info().rss - before[2] < 20_000_000  # 200 MB went each way
    assert worker.memory_info().rss - before[3] < 20_000_000
    await pool.close()


async def test_starting_and_closing_again_and_again_leaves_nothing(nothing_left):
    for _ in range(3):
        pool = make(workers=2)
        await pool.start()
        await submit(pool, 1, size=200_000)
        await pool.close()


async def test_a_loop_that_ends_without_closing_the_pool_leaves_no_process():
    def run() -> int:
        async def forget() -> int:
            pool = make()
            await pool.start()
            return pool.statistics().workers[0].pid

        return asyncio.run(forget())

    pid = await asyncio.to_thread(run)
    await until(lambda: not psutil.pid_exists(pid))


async def test_a_worker_that_does_not_read_never_blocks_the_loop(nothing_left):
    """Hundreds of batches ahead of a stopped worker: more than its socket holds, so they wait in the front."""
    pool = make(credits_each=400, queue_items=1000)
    await pool.start()
    pid = pool.statistics().workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        futures = [submit(pool, number, size=40_000) for number in range(400)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert time.monotonic() - begun < 30.0
        assert pool.statistics().running == 400
    finally:
        os.kill(pid, signal.SIGCONT)
    answers = await asyncio.gather(*futures)
    assert [answer.payload.meta["id"] for answer in answers] == list(range(400))
    await pool.close()


async def test_without_descriptors_items_fail_as_unavailable_and_later_ones_succeed(nothing_left):
    pool = make()
    await pool.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds(), hard))
    hoard = []
    try:
        with contextlib.suppress(OSError):  # the limit is on numbers, not on how many: fill the gaps
            while True:
                hoard.append(os.dup(0))
        with pytest.raises(Unavailable, match="descriptors"):
            await submit(pool, 1, size=1_000_000)
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await submit(pool, 2, size=1_000_000)).payload.meta["id"] == 2
    assert pool.statistics().counters.deaths == 0
    await pool.close()


@pytest.mark.parametrize(
    ("kind", "limit", "asked", "told"),
    [
        (psutil.RLIMIT_NOFILE, 3, {"size": 1_000_000}, "no descriptor is left"),  # the numbers below 3 are taken
        (psutil.RLIMIT_FSIZE, 2**16, {"answer_bytes": 1_000_000}, "results cannot be sent"),
    ],
    ids=["for the batch", "for the memory of its answer"],
)
async def test_a_worker_without_descriptors_loses_that_batch_and_computes_the_next(
    nothing_left, caplog, kind, limit, asked, told
):
    """The memory of its batches does not reach it, or that of its answers cannot be made. The items are not to blame,
    and what comes later has new memory."""
    pool = make()
    await pool.start()
    worker = psutil.Process(pool.statistics().workers[0].pid)
    usual = worker.rlimit(kind)
    worker.rlimit(kind, (limit, usual[1]))
    try:
        with pytest.raises(Unavailable, match="descriptors or memory"):
            await submit(pool, 1, **asked)
        assert told in caplog.text
    finally:
        worker.rlimit(kind, usual)
    for number in (1, 2, 3):
        answer = await submit(pool, number, **asked)
        assert answer.payload.meta["id"] == number
        assert len(answer.payload.buffers[0]) == 1_000_000
    assert pool.statistics().counters.deaths == 0
    await pool.close()


async def test_a_batch_is_whole_after_the_worker_that_held_it_was_killed(nothing_left, tmp_path):
    """Each worker process has memory of its own; what is sent again is written again."""
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    pool = make(workers=2, credits_each=2, max_batch=2, config={"journal": str(journal)})
    await pool.start()
    answers = [
        pool.submit(
            Payload({"id": number, "wait_for": str(gate)}, (bytes([number]) * 200_000,)),
            request_id="r",
            deadline=Deadline.after(60),
        )
        for number in range(24)
    ]
    victim = pool.statistics().workers[0].pid
    # It has begun a batch and cannot end it, and has another one waiting.
    await until(lambda: journal.exists() and f" {victim}\n" in journal.read_text())
    os.kill(victim, signal.SIGKILL)
    await until(lambda: pool.statistics().counters.deaths == 1)
    gate.touch()
    for number, outcome in enumerate(await asyncio.gather(*answers)):
        assert outcome.payload.meta["id"] == number
        assert bytes(outcome.payload.buffers[0]) == bytes([number]) * 200_000
    assert pool.statistics().counters.deaths == 1
    await pool.close()


async def test_a_worker_runs_where_and_how_it_was_told(nothing_left):
    core = min(os.sched_getaffinity(0))
    spec = WorkerSpec("pool_handlers:Scripted", {}, (Placement(0, "cpu", (core,), 1),))
    pool = Pool(spec, PoolLimits(), name="test", timing=QUICK)
    await pool.start()
    worker = psutil.Process(pool.statistics().workers[0].pid)
    assert worker.cpu_affinity() == [core]
    assert worker.nice() == min(19, psutil.Process().nice() + 5)
    assert worker.environ()["OMP_NUM_THREADS"] == "1"
    assert worker.environ()["OMP_WAIT_POLICY"] == "PASSIVE"
    facts = pool.facts[0]["process"]
    assert (facts["pid"], facts["cores"], facts["pinned"]) == (worker.pid, (core,), True)
    await pool.close()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
