"""What a pool promises of items that are submitted together. Counted at the caller."""

from __future__ import annotations

import asyncio
from typing import Any

from pool_bench import submit
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import (
    InvalidImage,
    ModelFailed,
    Quarantined,
    QueueFull,
)
from sluiceway_runtime.pool import (
    Answers,
    Payload,
    Pool,
    Submission,
    Work,
)
from waiting import until


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


async def test_a_callback_that_raises_costs_nobody_else_an_answer(bench):
    """It is a bug of one caller, and the loop hears of it as of any."""
    pool = await bench.start(max_batch=8)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def bad(_: Answers) -> None:
        raise RuntimeError("a bug in a caller")

    asked: dict[str, Any] = {"request_id": "bad", "deadline": Deadline.after(20), "answered": bad}
    submission = pool.submit_many([Work(Payload({"id": 0, "pause": 0.05}))], **asked)
    good = submit(pool, id=1)
    assert (await good).payload.meta["batch"] == 2, "they shared a batch"
    assert [str(context["exception"]) for context in told] == ["a bug in a caller"]
    assert submission.unanswered == 0
    assert (await submit(pool, id=2)).payload.meta["id"] == 2


async def test_what_is_cancelled_is_not_computed_though_a_worker_has_it(bench, tmp_path):
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    pool = await bench.start(max_batch=2, credits_each=3, config={"journal": str(journal)})
    first = submit(pool, id=0, wait_for=str(gate))
    await until(journal.exists)
    gone = Group(pool, *({"id": number} for number in range(1, 5)), request_id="gone")
    await until(lambda: pool.load().running == 5)
    mixed = [submit(pool, id=number, request_id="mixed") for number in (5, 6)]
    gone.submission.cancel()
    gate.touch()
    assert (await first).payload.meta["id"] == 0
    assert [(await one).payload.meta["id"] for one in mixed] == [5, 6]
    begun = [int(line.split()[0]) for line in journal.read_text().splitlines()]
    assert sorted(begun) == [0, 5, 6]
    assert gone.answers == []
    (worker,) = pool.statistics().workers
    assert worker.items == 3


async def test_of_a_batch_that_a_worker_has_only_what_is_wanted_is_computed(bench, tmp_path):
    gate, journal = tmp_path / "gate", tmp_path / "journal"
    pool = await bench.start(max_batch=4, credits_each=2, config={"journal": str(journal)})
    first = submit(pool, id=0, wait_for=str(gate))
    await until(journal.exists)
    futures = [submit(pool, id=number) for number in range(1, 5)]
    await until(lambda: pool.load().running == 5)
    futures[1].cancel()
    await asyncio.sleep(0)  # its callback tells the pool
    gate.touch()
    await first
    answers = [(await futures[number]).payload.meta for number in (0, 2, 3)]
    assert [(answer["id"], answer["batch"]) for answer in answers] == [(1, 3), (3, 3), (4, 3)]
    assert "2" not in [line.split()[0] for line in journal.read_text().splitlines()]
