"""What every pool promises, be its workers processes or threads. Counted at the caller."""

from __future__ import annotations

import asyncio
import time

import pytest
from pool_bench import submit
from sluiceway_runtime.errors import (
    DeadlineExceeded,
    InvalidImage,
    ModelFailed,
    Quarantined,
    QueueFull,
    StartupError,
    Unavailable,
)
from sluiceway_runtime.pool import (
    Payload,
    Priority,
)
from waiting import until


async def test_an_item_comes_back_with_its_times_and_its_worker(bench):
    pool = await bench.start(workers=2)
    outcome = await submit(pool, id=7)
    assert outcome.payload.meta["id"] == 7
    assert outcome.worker in (0, 1)
    assert outcome.compute_ms >= 0
    assert outcome.queue_ms >= 0


@pytest.mark.parametrize("sizes", [(0,), (1, 0, 3), (70_000,), (10, 200_000, 0, 65_536), (1,) * 1500])
async def test_buffers_arrive_as_they_were_sent_and_cannot_be_written(bench, sizes):
    pool = await bench.start()
    buffers = tuple(bytes([index % 251]) * size for index, size in enumerate(sizes))
    outcome = await submit(pool, id=1, buffers=buffers)
    assert tuple(bytes(view) for view in outcome.payload.buffers) == buffers
    assert all(memoryview(view).readonly for view in outcome.payload.buffers)


async def test_bytearrays_and_memoryviews_of_any_shape_may_be_sent(bench):
    pool = await bench.start()
    pixels = bytes(range(240)) * 300
    shaped = memoryview(pixels).cast("B", (300, 80, 3))
    outcome = await submit(pool, id=1, buffers=(bytearray(pixels), shaped))
    assert [bytes(view) for view in outcome.payload.buffers] == [pixels, pixels]
    assert Payload(None, (bytearray(pixels), shaped)).size_bytes == 2 * len(pixels)


async def test_answers_outlive_the_pool(bench):
    pool = await bench.start()
    outcome = await submit(pool, id=1, buffers=(b"x" * 100_000,))
    await pool.close()
    assert bytes(outcome.payload.buffers[0]) == b"x" * 100_000


async def test_items_submitted_together_share_a_batch_and_keep_their_answers_apart(bench):
    pool = await bench.start(max_batch=8)
    outcomes = await asyncio.gather(*(submit(pool, id=number, buffers=(bytes([number]) * 9,)) for number in range(8)))
    assert [outcome.payload.meta["id"] for outcome in outcomes] == list(range(8))
    assert [bytes(outcome.payload.buffers[0])[0] for outcome in outcomes] == list(range(8))
    assert {outcome.payload.meta["batch"] for outcome in outcomes} == {8}


async def test_only_items_of_one_group_share_a_batch(bench):
    pool = await bench.start(max_batch=8)
    outcomes = await asyncio.gather(*(submit(pool, id=number, group=number % 2) for number in range(8)))
    assert {outcome.payload.meta["batch"] for outcome in outcomes} == {4}


async def test_every_worker_serves(bench):
    pool = await bench.start(workers=3)
    outcomes = await asyncio.gather(*(submit(pool, id=number) for number in range(30)))
    assert {outcome.worker for outcome in outcomes} == {0, 1, 2}
    assert sum(worker.items for worker in pool.statistics().workers) == 30


async def test_facts_of_every_worker_are_there_once_started(bench):
    pool = await bench.start(workers=2)
    assert [facts["index"] for facts in pool.facts] == [0, 1]


async def test_before_start_and_after_close_items_are_refused(bench):
    pool = bench.make()
    with pytest.raises(Unavailable):
        submit(pool, id=1)
    await pool.start()
    await pool.close()
    with pytest.raises(Unavailable):
        submit(pool, id=1)
    await pool.close()


async def test_a_start_ends_when_the_pool_is_closed_meanwhile(bench):
    pool = bench.make(config={"hang_in_setup": 0.5})
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(StartupError, match="closed"):
        await asyncio.wait_for(starting, 10.0)


async def test_a_setup_that_raises_fails_the_start_with_its_own_message(bench):
    pool = bench.make(workers=2, config={"fail_setup": "the weights are missing: run models pull"})
    with pytest.raises(StartupError, match="the weights are missing: run models pull"):
        await pool.start()


@pytest.mark.parametrize("factory", ["no_such_module:X", "pool_handlers:NoSuch", "pool_handlers"])
async def test_a_handler_that_does_not_exist_is_named_in_the_error(bench, factory):
    pool = bench.make(factory=factory)
    with pytest.raises(StartupError, match=factory):
        await pool.start()


async def test_an_error_for_one_item_leaves_its_batch_mates_alone(bench):
    pool = await bench.start(max_batch=3)
    good, bad, fine = submit(pool, id=1), submit(pool, id=2, refuse=True), submit(pool, id=3)
    with pytest.raises(InvalidImage) as caught:
        await bad
    assert caught.value.metadata == {"id": "2"}
    assert [(await future).payload.meta["id"] for future in (good, fine)] == [1, 3]
    assert pool.statistics().counters.batches == 1


async def test_a_model_that_raises_on_one_of_eight_fails_that_one(bench):
    pool = await bench.start(max_batch=8)
    futures = [submit(pool, id=number, **({"raise": True} if number == 5 else {})) for number in range(8)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(answers[5], ModelFailed)
    assert [answer.payload.meta["id"] for answer in answers if answer is not answers[5]] == [0, 1, 2, 3, 4, 6, 7]
    assert pool.statistics().counters.deaths == 0


async def test_what_cannot_be_pickled_fails_alone_on_either_way(bench):
    pool = await bench.start(max_batch=4)
    futures = [
        submit(pool, id=0),
        submit(pool, id=1, function=lambda: None),
        submit(pool, id=2, unpicklable=True),
        submit(pool, id=3),
    ]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(answers[1], ModelFailed)
    assert isinstance(answers[2], ModelFailed)
    assert [answers[number].payload.meta["id"] for number in (0, 3)] == [0, 3]
    assert pool.statistics().counters.deaths == 0


async def test_a_killer_is_quarantined_its_mates_succeed_and_it_is_known_again(bench):
    pool = await bench.start(max_batch=4)
    futures = [submit(pool, id=number, **({"crash": True} if number == 1 else {})) for number in range(4)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(answers[1], Quarantined)
    assert [answers[number].payload.meta["id"] for number in (0, 2, 3)] == [0, 2, 3]
    deaths = pool.statistics().counters.deaths
    assert deaths == 2
    with pytest.raises(Quarantined):
        submit(pool, id=1, crash=True)
    assert (await submit(pool, id=9)).payload.meta["id"] == 9
    assert pool.statistics().counters.deaths == deaths


async def test_a_hung_batch_costs_a_worker_and_its_item_but_no_other(bench):
    pool = await bench.start(max_batch=2, batch_timeout_s=2.0)
    hanging, mate = submit(pool, id=0, hang=30), submit(pool, id=1)
    with pytest.raises(Quarantined):
        await hanging
    assert (await mate).payload.meta["id"] == 1


async def test_a_deadline_is_kept_while_queued_and_no_compute_is_spent(bench, tmp_path):
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    pool = await bench.start(config={"journal": str(journal)})
    blocker = submit(pool, id="blocker", wait_for=str(gate))
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await submit(pool, id="late", within=0.15)
    assert 0.1 < time.monotonic() - begun < 10.0
    gate.touch()
    await blocker
    await submit(pool, id="last")
    assert [line.split()[0] for line in journal.read_text().splitlines()] == ["blocker", "last"]


async def test_a_deadline_is_kept_while_running(bench, tmp_path):
    gate = tmp_path / "gate"
    pool = await bench.start()
    with pytest.raises(DeadlineExceeded):
        await submit(pool, id=1, wait_for=str(gate), within=0.15)
    gate.touch()
    assert (await submit(pool, id=2)).payload.meta["id"] == 2


async def test_cancelling_a_queued_item_spends_nothing_on_it(bench, tmp_path):
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    pool = await bench.start(config={"journal": str(journal)})
    blocker = submit(pool, id="blocker", wait_for=str(gate))
    await asyncio.sleep(0)
    dropped, kept = submit(pool, id="dropped"), submit(pool, id="kept")
    dropped.cancel()
    await asyncio.sleep(0)
    gate.touch()
    await blocker
    await kept
    assert "dropped" not in journal.read_text()
    assert pool.statistics().counters.cancelled == 1


async def test_cancelling_a_running_item_leaves_its_batch_mate_alone(bench, tmp_path):
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    pool = await bench.start(max_batch=2, config={"journal": str(journal)})
    dropped, kept = submit(pool, id=1, wait_for=str(gate)), submit(pool, id=2)
    await until(journal.exists)
    dropped.cancel()
    await asyncio.sleep(0)
    gate.touch()
    assert (await kept).payload.meta["id"] == 2
    assert dropped.cancelled()


async def test_a_full_queue_refuses_with_a_time_to_try_again(bench, tmp_path):
    gate = tmp_path / "gate"
    pool = await bench.start(queue_items=2)
    running = submit(pool, id=0, wait_for=str(gate))
    await asyncio.sleep(0)
    waiting = [submit(pool, id=number) for number in (1, 2)]
    with pytest.raises(QueueFull) as caught:
        submit(pool, id=3)
    assert caught.value.retry_after_s > 0
    gate.touch()
    assert [outcome.payload.meta["id"] for outcome in await asyncio.gather(running, *waiting)] == [0, 1, 2]


async def test_the_urgent_goes_before_the_rest(bench, tmp_path):
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    pool = await bench.start(config={"journal": str(journal)})
    futures = [submit(pool, id="blocker", wait_for=str(gate))]
    await asyncio.sleep(0)
    for name, priority in (("bulk", Priority.BULK), ("normal", Priority.NORMAL), ("urgent", Priority.INTERACTIVE)):
        futures.append(submit(pool, id=name, priority=priority))
    gate.touch()
    await asyncio.gather(*futures)
    assert [line.split()[0] for line in journal.read_text().splitlines()] == ["blocker", "urgent", "normal", "bulk"]


async def test_draining_finishes_what_was_accepted_and_takes_nothing_new(bench):
    pool = await bench.start(max_batch=2)
    futures = [submit(pool, id=number) for number in range(20)]
    drained = asyncio.create_task(pool.drain(30.0))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        submit(pool, id=99)
    assert await drained
    assert [(await future).payload.meta["id"] for future in futures] == list(range(20))


async def test_draining_gives_up_after_its_grace_and_closing_answers_the_rest(bench, tmp_path):
    gate = tmp_path / "gate"
    pool = await bench.start()
    futures = [submit(pool, id=number, wait_for=str(gate)) for number in range(3)]
    assert not await pool.drain(0.1)
    closing = asyncio.create_task(pool.close())
    answers = await asyncio.gather(*futures, return_exceptions=True)
    gate.touch()
    await closing
    assert all(isinstance(answer, Unavailable) for answer in answers)


async def test_the_books_balance_at_the_caller(bench):
    pool = await bench.start(workers=2, max_batch=4)
    futures = []
    for number in range(60):
        kind = {0: {"refuse": True}, 1: {"raise": True}}.get(number % 10, {})
        futures.append(submit(pool, id=number, request_id=str(number % 3), **kind))
    answers = await asyncio.gather(*futures, return_exceptions=True)
    good = [answer for answer in answers if not isinstance(answer, Exception)]
    assert [answer.payload.meta["id"] for answer in good] == [number for number in range(60) if number % 10 > 1]
    counters = pool.statistics().counters
    assert (counters.accepted, counters.succeeded, counters.failed) == (60, 48, 12)
    assert pool.statistics().running == pool.statistics().queued == 0
