"""What every pool promises, be its workers processes or threads. Counted at the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sluiceway_runtime.deadline import Deadline
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
    Answers,
    Payload,
    Placement,
    Pool,
    PoolLimits,
    Priority,
    Submission,
    Timing,
    Work,
    WorkerSpec,
)
from sluiceway_runtime.pool.testing import InProcessPool

QUICK = Timing(restart_delay_s=0.01, restart_delay_max_s=0.05, stop_grace_s=1.0)
KINDS = {"process": Pool, "thread": InProcessPool}


class Bench:
    """Makes pools of one kind, and closes them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.pools: list[Pool] = []

    def make(
        self,
        *,
        workers: int = 1,
        credits_each: int = 1,
        factory: str = "pool_handlers:Scripted",
        config: dict[str, Any] | None = None,
        **limits: Any,
    ) -> Pool:
        placements = tuple(Placement(index, "cpu", None, 1) for index in range(workers))
        settings = {"in_process": self._kind == "thread", **(config or {})}
        spec = WorkerSpec(factory, settings, placements, credits_each)
        pool = KINDS[self._kind](spec, PoolLimits(**limits), name="test", timing=QUICK)
        self.pools.append(pool)
        return pool

    async def start(self, **options: Any) -> Pool:
        pool = self.make(**options)
        await pool.start()
        return pool


@pytest.fixture(params=list(KINDS))
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    bench = Bench(request.param)
    yield bench
    for pool in bench.pools:
        await pool.close()


def submit(
    pool: Pool,
    *,
    buffers: tuple[Any, ...] = (),
    within: float = 20.0,
    request_id: str = "r",
    priority: Priority = Priority.NORMAL,
    group: Any = None,
    cost: int = 1,
    **meta: Any,
) -> asyncio.Future[Any]:
    return pool.submit(
        Payload(meta, buffers),
        request_id=request_id,
        deadline=Deadline.after(within),
        priority=priority,
        group=group,
        cost=cost,
    )


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
    pool = await bench.start(max_batch=2, batch_timeout_s=0.25)
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
    assert 0.1 < time.monotonic() - begun < 1.0
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
    drained = asyncio.create_task(pool.drain(10.0))
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


async def until(condition: Any, within: float = 10.0) -> None:
    """Poll what no event tells of: a file that a worker writes."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


class Group:
    """Items submitted together, and what came back for them."""

    def __init__(self, pool: Pool, *metas: dict[str, Any], within: float = 20.0, request_id: str = "r") -> None:
        self.answers: list[Answers] = []
        self._count = len(metas)
        self._came = asyncio.Event()
        self.submission: Submission = pool.submit_many(
            [Work(Payload(meta), meta.get("group")) for meta in metas],
            request_id=request_id,
            deadline=Deadline.after(within),
            answered=self._answered,
        )

    def _answered(self, answers: Answers) -> None:
        self.answers.append(answers)
        self._came.set()

    async def results(self, count: int) -> dict[int, Any]:
        """So many results by position."""
        async with asyncio.timeout(20):
            while sum(len(answers.positions) for answers in self.answers) < count:
                self._came.clear()
                await self._came.wait()
        pairs = [pair for answers in self.answers for pair in zip(answers.positions, answers.results, strict=True)]
        assert len(pairs) == len(dict(pairs)) == count, "an item was answered twice"
        return dict(pairs)


async def test_items_submitted_together_come_back_by_position_one_call_a_batch(bench):
    pool = await bench.start(max_batch=4)
    group = Group(pool, *({"id": number} for number in range(8)))
    results = await group.results(8)
    assert [results[position].meta["id"] for position in range(8)] == list(range(8))
    assert [sorted(answers.positions) for answers in group.answers] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(answers.worker == 0 and answers.compute_ms >= 0 for answers in group.answers)


async def test_submissions_that_share_a_batch_each_hear_of_their_own(bench, tmp_path):
    pool = await bench.start(max_batch=8)
    gate = tmp_path / "gate"
    blocker = submit(pool, id="blocker", wait_for=str(gate))
    await asyncio.sleep(0.05)
    one = Group(pool, {"id": "a"}, {"id": "b"}, request_id="one")
    two = Group(pool, {"id": "c"}, {"id": "d"}, request_id="two")
    gate.touch()
    await blocker
    first, second = await one.results(2), await two.results(2)
    assert [first[0].meta["id"], first[1].meta["id"]] == ["a", "b"]
    assert [second[0].meta["id"], second[1].meta["id"]] == ["c", "d"]
    assert {result.meta["batch"] for result in (*first.values(), *second.values())} == {4}


async def test_one_bad_item_of_a_submission_fails_alone(bench):
    pool = await bench.start(max_batch=4)
    results = await Group(pool, {"id": 0}, {"id": 1, "refuse": True}, {"id": 2, "raise": True}, {"id": 3}).results(4)
    assert [results[0].meta["id"], results[3].meta["id"]] == [0, 3]
    assert isinstance(results[1], InvalidImage)
    assert isinstance(results[2], ModelFailed)


async def test_what_finds_no_room_is_named_and_the_rest_is_computed(bench, tmp_path):
    pool = await bench.start(queue_items=2)
    gate = tmp_path / "gate"
    blocker = submit(pool, id="blocker", wait_for=str(gate))
    await asyncio.sleep(0.05)
    group = Group(pool, *({"id": number} for number in range(4)))
    assert [position for position, _ in group.submission.refused] == [2, 3]
    assert all(isinstance(error, QueueFull) for _, error in group.submission.refused)
    gate.touch()
    await blocker
    assert sorted(await group.results(2)) == [0, 1]


async def test_a_cancelled_submission_hears_nothing_more_and_is_not_computed(bench, tmp_path):
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    pool = await bench.start(config={"journal": str(journal)})
    blocker = submit(pool, id="blocker", wait_for=str(gate))
    await asyncio.sleep(0.05)
    group = Group(pool, {"id": "dropped"}, {"id": "dropped"})
    group.submission.cancel()
    group.submission.cancel()
    gate.touch()
    await blocker
    await submit(pool, id="last")
    assert group.answers == []
    assert "dropped" not in journal.read_text()
    assert pool.statistics().counters.cancelled == 2


async def test_nothing_submitted_is_nothing_answered(bench):
    pool = await bench.start()
    group = Group(pool)
    assert group.submission.refused == []
    assert pool.load().queued == pool.load().running == 0


async def test_a_worker_that_dies_costs_a_submission_only_the_killer(bench):
    pool = await bench.start(max_batch=4)
    results = await Group(pool, *({"id": number, "crash": number == 2} for number in range(4))).results(4)
    assert isinstance(results[2], Quarantined)
    assert [results[position].meta["id"] for position in (0, 1, 3)] == [0, 1, 3]
