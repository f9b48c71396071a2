"""Workers that die, hang, or will not end, with real processes and real signals. Answers are counted at the caller."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from pool_bench import make_pool, pids
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Quarantined, StartupError, Unavailable
from sluiceway_runtime.pool import Payload, Pool, Timing
from waiting import until

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=0.4)
# For tests that count deaths: a worker that was asked to go and is kept from it until its grace is over counts as one.
PATIENT = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=10.0)
Make = Callable[..., Pool]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes pools; after the test they are closed, and no process and no descriptor may be left of them."""
    me = psutil.Process()
    descriptors, children = me.num_fds(), set(me.children(recursive=True))
    pools: list[Pool] = []

    def build(*, timing: Timing = QUICK, **options: Any) -> Pool:
        pools.append(make_pool(timing=timing, **options))
        return pools[-1]

    yield build
    for pool in pools:
        await pool.close()
    assert set(me.children(recursive=True)) <= children
    assert me.num_fds() <= descriptors


def submit(
    pool: Pool, number: int, *, within: float = 20.0, buffers: tuple[bytes, ...] = (), **meta: Any
) -> asyncio.Future[Any]:
    return pool.submit(
        Payload({"id": number} | meta, buffers), request_id=str(number % 3), deadline=Deadline.after(within)
    )


def ids(answers: list[Any]) -> list[int]:
    return [answer.payload.meta["id"] for answer in answers]


async def test_worker_killed_in_the_middle_of_a_batch(make, tmp_path):
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    pool = make(max_batch=4, config={"journal": str(journal)})
    await pool.start()
    futures = [submit(pool, number, wait_for=str(gate)) for number in range(4)]
    await until(journal.exists)
    victim = pids(pool)[0]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: pids(pool) != [victim])
    gate.touch()
    answers = await asyncio.gather(*futures)
    assert ids(answers) == [0, 1, 2, 3]
    assert {answer.payload.meta["batch"] for answer in answers} == {1}
    assert victim not in {answer.payload.meta["pid"] for answer in answers}
    assert pool.statistics().counters.deaths == 1


async def test_worker_killed_while_idle_is_replaced(make):
    pool = make()
    await pool.start()
    victim = pids(pool)[0]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: pool.statistics().counters.deaths == 1)
    with pytest.raises(Unavailable):
        submit(pool, 0)  # there is none that works, and other replicas may have one
    await until(lambda: pool.able)
    answer = await submit(pool, 1)
    assert answer.payload.meta["pid"] != victim
    assert pool.statistics().workers[0].restarts == 1


async def test_workers_killed_again_and_again_under_load_lose_and_double_nothing(make, tmp_path):
    journal = tmp_path / "journal"
    pool = make(workers=2, max_batch=4, credits_each=2, config={"journal": str(journal)})
    await pool.start()
    numbers = itertools.count()
    asked: set[int] = set()
    answered: list[int] = []
    over = False

    async def client() -> None:
        while not over:
            asked.add(number := next(numbers))
            answer = await submit(pool, number, buffers=(bytes([number % 251]) * 100_000,), pause=0.002, within=60)
            assert answer.payload.meta["id"] == number
            assert bytes(answer.payload.buffers[0]) == bytes([number % 251]) * 100_000
            answered.append(number)

    clients = [asyncio.create_task(client()) for _ in range(24)]
    for kills in (1, 2, 3):
        enough = len(answered) + 40
        await until(lambda: pool.statistics().ready_workers == 2 and len(answered) >= enough)  # noqa: B023 - awaited here
        os.kill(pids(pool)[kills % 2], signal.SIGKILL)
        await until(lambda: pool.statistics().counters.deaths == kills)  # noqa: B023 - awaited here
        # One item killed twice would be condemned: those that may have been with the victim are answered first.
        with_it = asked - set(answered)
        await until(lambda: with_it <= set(answered))  # noqa: B023 - awaited here
    over = True
    await asyncio.gather(*clients)
    assert sorted(answered) == sorted(asked)
    counters = pool.statistics().counters
    assert (counters.accepted, counters.succeeded, counters.failed) == (len(asked), len(asked), 0)
    begun = Counter(int(line.split()[0]) for line in journal.read_text().splitlines())
    assert set(begun) == asked
    # Only what was with a victim, two batches of four, is computed again.
    assert begun.total() - len(asked) <= 3 * 8


async def test_worker_hangs(make, tmp_path):
    pool = make(workers=2, max_batch=4, batch_timeout_s=2.0)
    await pool.start()
    futures = [submit(pool, number, **({"hang": 60} if number == 2 else {})) for number in range(6)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(answers[2], Quarantined)
    assert ids([answer for number, answer in enumerate(answers) if number != 2]) == [0, 1, 3, 4, 5]
    assert pool.statistics().counters.deaths == 2


async def test_worker_is_stopped_by_sigstop_and_replaced(make):
    pool = make(batch_timeout_s=2.0)
    await pool.start()
    os.kill(pids(pool)[0], signal.SIGSTOP)
    answer = await submit(pool, 1)
    assert answer.payload.meta["id"] == 1


async def test_worker_dies_at_start(make, caplog):
    pool = make(workers=2, config={"die_in_setup": 9})
    with pytest.raises(StartupError, match=r"did not start in 3 attempts: it exited with code 9"):
        await pool.start()
    assert pids(pool) == []


async def test_worker_raises_at_start(make):
    pool = make(config={"fail_setup": "weights of text-small are missing"})
    with pytest.raises(StartupError, match="weights of text-small are missing"):
        await pool.start()


async def test_worker_is_too_slow_to_start(make):
    pool = make(config={"hang_in_setup": 60}, start_timeout_s=0.3)
    with pytest.raises(StartupError, match=r"not ready after 0\.3 s"):
        await pool.start()


async def test_start_that_is_cancelled_leaves_nothing(make):
    pool = make(workers=2, config={"hang_in_setup": 60})
    starting = asyncio.create_task(pool.start())
    await until(lambda: len(pids(pool)) == 2)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pids(pool) == []


async def test_item_that_kills_every_worker_it_meets(make, caplog):
    pool = make(workers=2, max_batch=8)
    await pool.start()
    futures = [
        submit(pool, number, buffers=(bytes([number]) * 70_000,), **({"crash": True} if number == 3 else {}))
        for number in range(16)
    ]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    killer = answers.pop(3)
    assert isinstance(killer, Quarantined)
    assert ids(answers) == [number for number in range(16) if number != 3]
    assert all(bytes(answer.payload.buffers[0])[0] == answer.payload.meta["id"] for answer in answers)
    assert pool.statistics().counters.deaths == 2
    assert any(killer.metadata["digest"] in record.message for record in caplog.records)
    with pytest.raises(Quarantined):
        submit(pool, 3, buffers=(bytes([3]) * 70_000,), crash=True)


async def test_sigterm_to_every_worker_under_load_loses_nothing(make):
    """As when a supervisor signals the whole group: workers finish their batch, go, and are replaced."""
    pool = make(workers=2, credits_each=2, queue_items=1000, timing=PATIENT)
    await pool.start()
    before = set(pids(pool))
    futures = [submit(pool, number) for number in range(300)]
    await futures[10]
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    assert ids(await asyncio.gather(*futures)) == list(range(300))
    await until(lambda: pool.statistics().ready_workers == 2)
    assert not before & set(pids(pool))
    counters = pool.statistics().counters
    assert (counters.deaths, counters.quarantined) == (0, 0)


async def test_sigint_does_not_reach_workers(make):
    pool = make()
    await pool.start()
    worker = pids(pool)[0]
    os.kill(worker, signal.SIGINT)
    assert (await submit(pool, 1)).payload.meta["pid"] == worker


async def test_worker_that_ignores_sigterm_is_killed_when_its_grace_is_over(make):
    pool = make()
    await pool.start()
    worker = psutil.Process(pids(pool)[0])
    await submit(pool, 1, deaf=True)
    begun = asyncio.get_running_loop().time()
    await pool.close()
    assert QUICK.stop_grace_s <= asyncio.get_running_loop().time() - begun < QUICK.stop_grace_s + 20
    assert not worker.is_running()


async def test_worker_that_closes_its_socket_is_replaced(make):
    pool = make(max_batch=2)
    await pool.start()
    worker = pids(pool)[0]
    answers = await asyncio.gather(submit(pool, 1, hang_up=True), submit(pool, 2), return_exceptions=True)
    assert isinstance(answers[0], Quarantined)
    assert ids(answers[1:]) == [2]
    await until(lambda: not psutil.pid_exists(worker))
